// Reads in flight: when files come from a disk and not from the page cache, fetch those to come.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "record.hpp"

namespace esi {

namespace detail {

// Costs nothing until start(). From then on its threads read the headers of the next kWindow
// records and ask the system for their data files; whatever is wrong there, the reader reports.
class ReadAhead {
 public:
  ReadAhead(const std::vector<std::string>& stems, bool strict,
            const std::atomic<std::int64_t>& next)
      : stems_(stems), strict_(strict), next_(next) {}
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;
  ~ReadAhead() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    advanced_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  // Called by any reader that had to wait for the disk.
  void start() {
    if (started_.exchange(true)) return;
    ahead_ = next_.load();
    threads_.reserve(kThreads);
    for (int i = 0; i < kThreads; ++i) {
      try {
        threads_.emplace_back([this] { loop(); });
      } catch (const std::system_error&) {
        break;  // no more threads to be had: fewer reads in flight
      }
    }
  }

  // Called by the readers after each record.
  void advance() {
    if (!started_.load(std::memory_order_relaxed)) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    advanced_.notify_all();  // each waits for an index of its own
  }

 private:
  static constexpr int kThreads = 16;
  static constexpr std::int64_t kWindow = 32;

  void loop() {
    const auto count = static_cast<std::int64_t>(stems_.size());
    for (std::int64_t i = ahead_++; i < count; i = ahead_++) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        advanced_.wait(lock, [&] { return stop_ || i < next_.load() + kWindow; });
        if (stop_) return;
      }
      if (i < next_.load()) continue;  // too late
      try {
        fetch(stems_[static_cast<std::size_t>(i)]);
      } catch (const std::exception&) {
        continue;
      }
    }
  }

  void fetch(const std::string& stem) const {
    Reader reader(strict_);
    reader.open(stem);
    for (const Group& group : reader.record.groups) {
      File(folder_of(stem) + group.file).will_need();
    }
  }

  const std::vector<std::string>& stems_;
  const bool strict_;
  const std::atomic<std::int64_t>& next_;
  std::atomic<std::int64_t> ahead_{0};
  std::atomic<bool> started_{false};
  std::mutex mutex_;
  std::condition_variable advanced_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace detail

}  // namespace esi
