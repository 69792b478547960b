// Work shared among threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace esi {

// Runs `loop` on this thread and on up to num_threads - 1 others, no more than n in all. It must
// not throw, and take its work from a counter that all share.
template <typename Loop>
void run_on_threads(std::int64_t n, int num_threads, const Loop& loop) {
  const std::int64_t wanted = std::max<std::int64_t>(std::min<std::int64_t>(num_threads, n) - 1, 0);
  std::vector<std::thread> threads;
  threads.reserve(static_cast<std::size_t>(wanted));
  for (std::int64_t i = 0; i < wanted; ++i) {
    try {
      threads.emplace_back(loop);
    } catch (const std::system_error&) {
      break;  // no more threads to be had: those that run do the work
    }
  }
  loop();
  for (std::thread& thread : threads) thread.join();
}

// Runs work(index, state) for 0 <= index < n, each thread with a state of its own. What it throws
// becomes failed(index, message). `next` counts the indices begun.
template <typename MakeState, typename Work, typename Failed>
void run_threads(std::int64_t n, int num_threads, std::atomic<std::int64_t>& next,
                 const MakeState& make_state, const Work& work, const Failed& failed) {
  run_on_threads(n, num_threads, [&] {
    auto state = make_state();
    for (std::int64_t i = next++; i < n; i = next++) {
      try {
        work(i, state);
      } catch (const std::bad_alloc&) {
        failed(i, "out of memory");
      } catch (const std::exception& error) {
        failed(i, error.what());
      }
    }
  });
}

}  // namespace esi
