#include "threads.h"

#include <chrono>

namespace sparing {

namespace {

constexpr auto PATIENCE = std::chrono::microseconds(60);
constexpr int GLANCES = 64;  // checks between two reads of the clock

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Whether ``ready`` comes true within PATIENCE.
template <class Ready>
bool soon(const Ready& ready) {
    const auto until = std::chrono::steady_clock::now() + PATIENCE;
    do {
        for (int i = 0; i < GLANCES; i++) {
            if (ready()) return true;
            pause();
        }
    } while (std::chrono::steady_clock::now() < until);
    return ready();
}

}  // namespace

Pool::Pool(int threads) {
    for (int thread = 1; thread < threads; thread++) workers_.emplace_back([this, thread] { serve(thread); });
}

Pool::~Pool() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        end_ = true;
    }
    more_.notify_all();
    for (auto& worker : workers_) worker.join();
}

void Pool::run(int tasks, Call call, const void* work) {
    if (tasks <= 0) return;
    call_ = call, work_ = work;
    left_.store(tasks, std::memory_order_relaxed);
    const uint64_t region = (open_.load(std::memory_order_relaxed) >> 32) + 1;
    open_.store(region << 32 | (uint32_t)tasks);
    if (asleep_.load() > 0) {
        std::lock_guard<std::mutex> lock(mutex_);
        more_.notify_all();
    }
    while (take(0)) {}
    const auto done = [this] { return left_.load(std::memory_order_seq_cst) == 0; };
    if (soon(done)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    waiting_ = true;
    done_.wait(lock, done);
    waiting_ = false;
}

bool Pool::take(int thread) {
    uint64_t open = open_.load(std::memory_order_acquire);
    while ((uint32_t)open > 0) {
        if (!open_.compare_exchange_weak(open, open - 1, std::memory_order_acq_rel)) continue;
        call_(work_, (int)(uint32_t)open - 1, thread);
        if (left_.fetch_sub(1) == 1 && thread != 0) {
            // a caller about to sleep checks again under the lock
            if (waiting_.load()) {
                std::lock_guard<std::mutex> lock(mutex_);
                done_.notify_one();
            }
        }
        return true;
    }
    return false;
}

void Pool::serve(int thread) {
    const auto ready = [this] { return (uint32_t)open_.load() > 0 || end_.load(); };
    while (!end_.load()) {
        if (take(thread) || soon(ready)) continue;
        std::unique_lock<std::mutex> lock(mutex_);
        asleep_.fetch_add(1);
        more_.wait(lock, ready);
        asleep_.fetch_sub(1);
    }
}

}  // namespace sparing
