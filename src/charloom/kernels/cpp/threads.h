// A team of threads that is kept between calls, parked when there is nothing to do.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#if !defined(_WIN32)
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#endif

#if !defined(CHARLOOM_SPINS)
#define CHARLOOM_SPINS 2000
#endif

namespace charloom {

// How many threads a call of this library may use.
inline std::atomic<int> allowed_threads{1};

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Changes that are waited for are sequentially consistent: a notification looks whether anybody sleeps, and with a weaker
// order that look may run ahead of the change. Whoever falls asleep in between would never be woken.

// Nanoseconds that go on evenly.
inline int64_t nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Waits until `value` is no longer `old`: briefly at work, for what comes soon, then asleep, which is added to `asleep`.
// Whoever is not running because there are more threads than cores gets a core then.
inline uint32_t wait_while(const std::atomic<uint32_t>& value, uint32_t old, std::atomic<int64_t>* asleep = nullptr) {
  for (int spin = 0; spin < CHARLOOM_SPINS; ++spin) {
    if (const uint32_t now = value.load(std::memory_order_acquire); now != old) return now;
    pause();
  }
  const int64_t began = asleep ? nanoseconds() : 0;
  for (;;) {
    if (const uint32_t now = value.load(std::memory_order_acquire); now != old) {
      if (asleep) asleep->fetch_add(nanoseconds() - began, std::memory_order_relaxed);
      return now;
    }
    value.wait(old, std::memory_order_acquire);
  }
}

// Tells whether a team is worth having. Its members wait for the slowest at every step: where other processes hold one of
// them up, the caller alone is sooner done. So after some milliseconds in which a team of n members slept for more than
// n - 1 of them, which is slower than one at work all the time, the caller works alone for some times as long.
class Worth {
 public:
  bool is_alone(int64_t now) const { return now < until_.load(std::memory_order_relaxed); }

  // Takes note of a call of the team's: when it began and ended, and how long its members slept in it, all together.
  void worked(int members, int64_t began, int64_t ended, int64_t asleep) {
    taken_ += ended - began;
    lost_ += asleep - (members - 1) * (ended - began);
    if (taken_ < kWindow) return;
    if (lost_ > 0) until_.store(ended + kTimes * std::min(taken_, kLongest), std::memory_order_relaxed);
    taken_ = lost_ = 0;
  }

  static constexpr int64_t kWindow = 10'000'000, kLongest = 200'000'000;  // nanoseconds
  static constexpr int kTimes = 10;

 private:
  std::atomic<int64_t> until_{0};
  int64_t taken_ = 0, lost_ = 0;
};

// While it lives its thread takes numbers below 2^-126 for zero, and makes none. So do XLA's threads, and each member of
// a team must: a number would else depend on who computes it.
class WithoutDenormals {
 public:
#if defined(__x86_64__)
  WithoutDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~WithoutDenormals() { _mm_setcsr(before_); }
#elif defined(__aarch64__)
  WithoutDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(before_ | uint64_t{1} << 24));
  }
  ~WithoutDenormals() { asm volatile("msr fpcr, %0" : : "r"(before_)); }
#else
  WithoutDenormals() : before_(0) {}
#endif
  WithoutDenormals(const WithoutDenormals&) = delete;
  WithoutDenormals& operator=(const WithoutDenormals&) = delete;

 private:
#if defined(__x86_64__)
  unsigned before_;
#else
  uint64_t before_;
#endif
};

// Thrown at a barrier that another member will never reach, because it failed.
struct Abandoned {};

// Where the members of a team meet.
class Barrier {
 public:
  void wait(int members) {
    const uint32_t phase = phase_.load(std::memory_order_acquire);
    if (abandoned_.load(std::memory_order_relaxed)) throw Abandoned{};
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1);
      phase_.notify_all();
    } else {
      wait_while(phase_, phase, &asleep_);
      if (abandoned_.load(std::memory_order_relaxed)) throw Abandoned{};
    }
  }

  // Wakes everyone who waits, and lets nobody wait again. The flag comes first: whoever sees the new phase sees it.
  void abandon() {
    abandoned_.store(true, std::memory_order_relaxed);
    phase_.fetch_add(1);
    phase_.notify_all();
  }

  // How long members have slept here since this was asked last, in nanoseconds, all together.
  int64_t asleep() { return asleep_.exchange(0, std::memory_order_relaxed); }

  // Makes it as good as new, once no member is left.
  void mend() {
    arrived_.store(0, std::memory_order_relaxed);
    abandoned_.store(false, std::memory_order_relaxed);
  }

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  std::atomic<bool> abandoned_{false};  // beside the phase, which everyone reads anyway
  alignas(64) std::atomic<int64_t> asleep_{0};
};

// One thread's part in a piece of work.
struct Member {
  int index;
  int members;
  Barrier* barrier;

  void wait() const {
    if (members > 1) barrier->wait(members);
  }

  // This member's share of `count` things: from first to last, which is not in it.
  int first(int count) const { return static_cast<int>(static_cast<int64_t>(count) * index / members); }
  int last(int count) const { return static_cast<int>(static_cast<int64_t>(count) * (index + 1) / members); }
};

// Memory that one call works in, and the next one again: the system would zero fresh memory every time.
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { release(); }

  // Room for `floats`, at the beginning of a cache line; what was there before is lost.
  float* reserve(size_t floats) {
    if (floats > size_) {
      release();
      const size_t bytes = (floats * sizeof(float) + kPage - 1) / kPage * kPage;
      memory_ = static_cast<float*>(::operator new(bytes, std::align_val_t{kPage}));
#if defined(__linux__)
      // Panels are read from end to end at every step; with small pages the time goes into looking them up.
      madvise(memory_, bytes, MADV_HUGEPAGE);
#endif
      size_ = floats;
    }
    return memory_;
  }

 private:
  void release() {
    ::operator delete(memory_, std::align_val_t{kPage});
    memory_ = nullptr, size_ = 0;
  }

  static constexpr size_t kPage = size_t{1} << 21;  // a large page
  float* memory_ = nullptr;
  size_t size_ = 0;
};

// Hands out parts of a call's memory; every member's hands out the same.
class Scratch {
 public:
  explicit Scratch(float* memory) : next_(memory) {}

  float* take(size_t floats) {
    float* taken = next_;
    next_ += rounded(floats);
    return taken;
  }

  // To whole cache lines, so that no two parts share one.
  static constexpr size_t rounded(size_t floats) { return (floats + 15) / 16 * 16; }

 private:
  float* next_;
};

class Team {
 public:
  // This process's team. A forked child has none of its parent's threads, and gets a team of its own.
  static Team& of_process() {
    static std::atomic<Team*> current{nullptr};
    Team* team = current.load(std::memory_order_acquire);
    if (team != nullptr && team->is_of_this_process()) return *team;
    Team* fresh = new Team();
    if (current.compare_exchange_strong(team, fresh, std::memory_order_acq_rel)) return *fresh;  // the parent's is left alone
    delete fresh;
    return *team;
  }

  // Calls work(member, scratch) on up to `threads` threads, of which the caller's is one; on it alone while another
  // call is at work, and where others would hold it up. Results must not depend on how many they are. `floats` is how much memory they share.
  //
  // What a member throws is thrown here, when all of them are done; the team is then as it was before.
  template <class Work>
  void run(int threads, size_t floats, const Work& work) {
    const WithoutDenormals mode;
    const int64_t began = threads > 1 ? nanoseconds() : 0;
    if (threads <= 1 || worth_.is_alone(began)) {
      static thread_local Arena arena;
      work(Member{0, 1, nullptr}, Scratch(arena.reserve(floats)));
      return;
    }
    if (busy_.exchange(true, std::memory_order_acquire)) {
      Arena arena;
      work(Member{0, 1, nullptr}, Scratch(arena.reserve(floats)));
      return;
    }
    struct Free {
      std::atomic<bool>& busy;
      ~Free() { busy.store(false, std::memory_order_release); }
    } free{busy_};
    scratch_ = arena_.reserve(floats);
    grow(threads - 1);
    leave_this_processor();
    members_ = std::min(threads, static_cast<int>(workers_.size()) + 1);
    work_ = &work;
    call_ = [](const void* any, Member member, float* scratch) {
      (*static_cast<const Work*>(any))(member, Scratch(scratch));
    };
    left_.store(static_cast<uint32_t>(workers_.size()), std::memory_order_relaxed);
    round_.fetch_add(1);
    round_.notify_all();
    attempt([&] { work(Member{0, members_, &barrier_}, Scratch(scratch_)); });
    std::atomic<int64_t> asleep{0};
    for (uint32_t left; (left = left_.load(std::memory_order_acquire)) != 0;) wait_while(left_, left, &asleep);
    if (!stays_together_) worth_.worked(members_, began, nanoseconds(), asleep + barrier_.asleep());
    if (failed_.load(std::memory_order_relaxed)) {
      failed_.store(false, std::memory_order_relaxed);
      barrier_.mend();
      std::rethrow_exception(std::exchange(failure_, nullptr));
    }
  }

  // Keeps the team at work whatever it costs; for tools that look at how its members get on.
  void stay_together() { stays_together_ = true; }

  // Ends the threads; for tools that look for what is left over.
  void dismiss() {
    ending_.store(true, std::memory_order_relaxed);
    round_.fetch_add(1);
    round_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
    ending_.store(false, std::memory_order_relaxed);
  }

 private:
  bool is_of_this_process() const {
#if defined(_WIN32)
    return true;
#else
    return process_ == getpid();
#endif
  }

  // Does a member's part. The first that fails says why; those that wait for it give up.
  template <class Part>
  void attempt(const Part& part) {
    try {
      part();
    } catch (const Abandoned&) {
    } catch (...) {
      if (!failed_.exchange(true)) failure_ = std::current_exception();
      barrier_.abandon();
    }
  }

  // Where the system gives no more threads, or no memory for them, the work is done by fewer.
  void grow(int workers) {
    try {
      while (static_cast<int>(workers_.size()) < workers) {
        const int index = static_cast<int>(workers_.size()) + 1;
        workers_.emplace_back(&Team::work, this, index, round_.load(std::memory_order_relaxed));
      }
    } catch (const std::exception&) {
    }
  }

  // Keeps the others off the processor that the caller runs on. The system would often wake one up there, where another
  // thread looked busy for some microseconds more, and leave the two to take turns for milliseconds.
  void leave_this_processor() {
#if defined(__linux__)
    const int here = sched_getcpu();
    if (here < 0 || (here == left_processor_ && placed_ == workers_.size())) return;
    cpu_set_t others;
    if (sched_getaffinity(0, sizeof others, &others) != 0) return;
    CPU_CLR(here, &others);
    if (CPU_COUNT(&others) == 0) return;
    for (std::thread& worker : workers_) pthread_setaffinity_np(worker.native_handle(), sizeof others, &others);
    left_processor_ = here, placed_ = workers_.size();
#endif
  }

  void work(int index, uint32_t round) {
    const WithoutDenormals mode;
    for (;;) {
      round = wait_while(round_, round);
      if (ending_.load(std::memory_order_relaxed)) return;
      if (index < members_) attempt([&] { call_(work_, Member{index, members_, &barrier_}, scratch_); });
      if (left_.fetch_sub(1) == 1) left_.notify_all();
    }
  }

#if !defined(_WIN32)
  const pid_t process_ = getpid();
#endif
  std::vector<std::thread> workers_;
  std::atomic<bool> busy_{false};
  std::atomic<bool> ending_{false};
  std::atomic<uint32_t> round_{0};
  std::atomic<uint32_t> left_{0};
  Barrier barrier_;
  Worth worth_;
  bool stays_together_ = false;
  std::atomic<bool> failed_{false};
  std::exception_ptr failure_;  // of the member that made it true
  int members_ = 0;
  const void* work_ = nullptr;
  void (*call_)(const void*, Member, float*) = nullptr;
  Arena arena_;
  float* scratch_ = nullptr;
  int left_processor_ = -1;
  size_t placed_ = 0;
};

}  // namespace charloom
