// A pool of threads that share out the tasks of a region.
//
// The caller takes tasks as well, and a region ends when its tasks are done, not when every thread has come:
// a thread that the system has taken off its core holds up no region in which it took no task. A thread without work
// looks for some for some microseconds and then sleeps, so that an idle engine costs nothing and two engines
// can share the cores.
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

    // The region's number in the upper half, its tasks that are not taken yet in the lower one: a thread
    // that comes too late cannot take a task of another region.
    std::atomic<uint64_t> open_{0};
    std::atomic<int> left_{0};  // tasks that are not done
    Call call_ = nullptr;
    const void* work_ = nullptr;

    std::mutex mutex_;
    std::condition_variable more_, done_;
    std::atomic<int> asleep_{0};
    std::atomic<bool> waiting_{false}, end_{false};
    std::vector<std::thread> workers_;
};

}  // namespace sparing
