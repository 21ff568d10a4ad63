// A pool of threads for the tasks of a parallel region.
//
// The caller takes tasks as well. A region ends when its tasks are done, so a thread that the system has taken off its core
// delays a region only if it holds a task. A thread without work spins for some microseconds and then sleeps: an idle engine
// costs nothing, and two engines can share the cores.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace sparing {

class Pool {
public:
    explicit Pool(int threads);
    ~Pool();

    int threads() const { return (int)workers_.size() + 1; }

    // Calls ``work(task, thread)`` for each task below ``tasks``, in any order, and returns when all are done.
    template <class Work>
    void run(int tasks, const Work& work) {
        if (tasks == 1 || workers_.empty()) {
            for (int task = 0; task < tasks; task++) work(task, 0);
            return;
        }
        run(tasks, [](const void* of, int task, int thread) { (*(const Work*)of)(task, thread); }, &work);
    }

private:
    using Call = void (*)(const void*, int task, int thread);

    void run(int tasks, Call call, const void* work);
    bool take(int thread);
    void serve(int thread);

    // The region's number in the upper half, its open tasks in the lower: a late thread cannot take a task of another region.
    std::atomic<uint64_t> open_{0};
    std::atomic<int> left_{0};  // tasks not yet done
    Call call_ = nullptr;
    const void* work_ = nullptr;

    std::mutex mutex_;
    std::condition_variable more_, done_;
    std::atomic<int> asleep_{0};
    std::atomic<bool> waiting_{false}, end_{false};
    std::vector<std::thread> workers_;
};

}  // namespace sparing
