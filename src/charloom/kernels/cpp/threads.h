// A team of threads that is kept between calls. Idle threads sleep.
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

// The number of threads that a call of this library may use.
inline std::atomic<int> allowed_threads{1};

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Stores that threads wait for are sequentially consistent. A notification checks whether a thread sleeps, and with a
// weaker order that check could happen before the store. A thread that falls asleep in between would never be woken.

// Returns the time of a monotonic clock in nanoseconds.
inline int64_t nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Waits until `value` is no longer `old`. The thread first spins for a short time, then sleeps, so that other threads can
// use its core. The time asleep is added to `asleep`.
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

// Decides whether a team is faster than its caller alone. The members wait for the slowest one at every step, and other
// processes may delay a member. A team of n members is slower than one thread when its members together sleep for more than
// n - 1 times the elapsed time. If that happens over kWindow, the caller works alone for kBackoff times as long.
class TeamPolicy {
 public:
  // Returns whether the caller works alone at the time `now`.
  bool bypasses_team(int64_t now) const { return now < bypassed_until_.load(std::memory_order_relaxed); }

  // Records a call of the team: when it began and ended, and how long all its members together slept.
  void record_call(int members, int64_t began, int64_t ended, int64_t asleep) {
    elapsed_ += ended - began;
    lost_ += asleep - (members - 1) * (ended - began);
    if (elapsed_ < kWindow) return;
    if (lost_ > 0) bypassed_until_.store(ended + kBackoff * std::min(elapsed_, kMaxTime), std::memory_order_relaxed);
    elapsed_ = lost_ = 0;
  }

  static constexpr int64_t kWindow = 10'000'000, kMaxTime = 200'000'000;  // nanoseconds
  static constexpr int kBackoff = 10;

 private:
  std::atomic<int64_t> bypassed_until_{0};
  int64_t elapsed_ = 0, lost_ = 0;
};

// Makes the current thread treat denormal numbers, those below 2^-126, as zero, until it is destroyed. XLA's threads do the
// same. Every member of a team must do so, or results would depend on which thread computes them.
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

// Thrown at a barrier that another member will never reach because it failed.
struct Abandoned {};

// A barrier for the members of a team.
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

  // Wakes all waiting members and makes every later wait fail. The flag is set first: a member that sees the new phase sees it.
  void abandon() {
    abandoned_.store(true, std::memory_order_relaxed);
    phase_.fetch_add(1);
    phase_.notify_all();
  }

  // Returns how many nanoseconds all members together have slept here since the last call.
  int64_t asleep() { return asleep_.exchange(0, std::memory_order_relaxed); }

  // Makes an abandoned barrier usable again, when no member waits any more.
  void reset() {
    arrived_.store(0, std::memory_order_relaxed);
    abandoned_.store(false, std::memory_order_relaxed);
  }

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  std::atomic<bool> abandoned_{false};  // in the cache line of the phase, which all members read anyway
  alignas(64) std::atomic<int64_t> asleep_{0};
};

// One thread's part of a call.
struct Member {
  int index;
  int members;
  Barrier* barrier;

  void wait() const {
    if (members > 1) barrier->wait(members);
  }

  // This member's share of `count` items: from first(count) up to, but not including, last(count).
  int first(int count) const { return static_cast<int>(static_cast<int64_t>(count) * index / members); }
  int last(int count) const { return static_cast<int>(static_cast<int64_t>(count) * (index + 1) / members); }
};

// Working memory that calls reuse. The operating system would zero new memory for every call.
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { release(); }

  // Returns memory for `floats` floats, aligned to a cache line. Earlier contents are lost.
  float* reserve(size_t floats) {
    if (floats > size_) {
      release();
      const size_t bytes = (floats * sizeof(float) + kPage - 1) / kPage * kPage;
      memory_ = static_cast<float*>(::operator new(bytes, std::align_val_t{kPage}));
#if defined(__linux__)
      // Panels are read from end to end at every step. With small pages, looking up addresses would take most of the time.
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

// Divides a call's memory into parts. Every member gets the same parts in the same order.
class Scratch {
 public:
  explicit Scratch(float* memory) : next_(memory) {}

  // Returns memory of the size of `floats` floats.
  template <class Element = float>
  Element* take(size_t floats) {
    float* taken = next_;
    next_ += rounded(floats);
    return reinterpret_cast<Element*>(taken);
  }

  // Rounds up to whole cache lines, so that no two parts share one.
  static constexpr size_t rounded(size_t floats) { return (floats + 15) / 16 * 16; }

 private:
  float* next_;
};

class Team {
 public:
  // Returns this process's team. A forked child does not have its parent's threads, so it gets a new team.
  static Team& of_process() {
    static std::atomic<Team*> current{nullptr};
    Team* team = current.load(std::memory_order_acquire);
    if (team != nullptr && team->is_of_this_process()) return *team;
    Team* fresh = new Team();
    if (current.compare_exchange_strong(team, fresh, std::memory_order_acq_rel)) return *fresh;  // the parent's team is not freed
    delete fresh;
    return *team;
  }

  // Calls work(member, scratch) on up to `threads` threads, including the caller's. If another call is running, or if
  // TeamPolicy says so, only the caller's thread works. Results must not depend on the number of threads. The members share
  // `floats` floats of memory.
  //
  // If a member throws, the exception is rethrown here when all members are done. The team can then be used again.
  template <class Work>
  void run(int threads, size_t floats, const Work& work) {
    const WithoutDenormals mode;
    const int64_t began = threads > 1 ? nanoseconds() : 0;
    if (threads <= 1 || policy_.bypasses_team(began)) {
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
    avoid_this_processor();
    members_ = std::min(threads, static_cast<int>(workers_.size()) + 1);
    work_ = &work;
    call_ = [](const void* any, Member member, float* scratch) {
      (*static_cast<const Work*>(any))(member, Scratch(scratch));
    };
    unfinished_.store(static_cast<uint32_t>(workers_.size()), std::memory_order_relaxed);
    round_.fetch_add(1);
    round_.notify_all();
    attempt([&] { work(Member{0, members_, &barrier_}, Scratch(scratch_)); });
    std::atomic<int64_t> asleep{0};
    for (uint32_t left; (left = unfinished_.load(std::memory_order_acquire)) != 0;) wait_while(unfinished_, left, &asleep);
    if (!always_uses_team_) policy_.record_call(members_, began, nanoseconds(), asleep + barrier_.asleep());
    if (failed_.load(std::memory_order_relaxed)) {
      failed_.store(false, std::memory_order_relaxed);
      barrier_.reset();
      std::rethrow_exception(std::exchange(failure_, nullptr));
    }
  }

  // Uses the team even if it is slower; for tests and sanitizers.
  void always_use_team() { always_uses_team_ = true; }

  // Ends the threads; for tests and leak checkers.
  void stop_threads() {
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

  // Runs a member's part. The exception of the first member that fails is kept, and members that wait for it stop.
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

  // If the system cannot start more threads, fewer do the work.
  void grow(int workers) {
    try {
      while (static_cast<int>(workers_.size()) < workers) {
        const int index = static_cast<int>(workers_.size()) + 1;
        workers_.emplace_back(&Team::work, this, index, round_.load(std::memory_order_relaxed));
      }
    } catch (const std::exception&) {
    }
  }

  // Keeps the other members off the caller's processor. The system would often wake one there while another processor still
  // looks busy for some microseconds. The two threads would then take turns for milliseconds.
  void avoid_this_processor() {
#if defined(__linux__)
    const int here = sched_getcpu();
    if (here < 0 || (here == avoided_processor_ && pinned_ == workers_.size())) return;
    cpu_set_t others;
    if (sched_getaffinity(0, sizeof others, &others) != 0) return;
    CPU_CLR(here, &others);
    if (CPU_COUNT(&others) == 0) return;
    for (std::thread& worker : workers_) pthread_setaffinity_np(worker.native_handle(), sizeof others, &others);
    avoided_processor_ = here, pinned_ = workers_.size();
#endif
  }

  void work(int index, uint32_t round) {
    const WithoutDenormals mode;
    for (;;) {
      round = wait_while(round_, round);
      if (ending_.load(std::memory_order_relaxed)) return;
      if (index < members_) attempt([&] { call_(work_, Member{index, members_, &barrier_}, scratch_); });
      if (unfinished_.fetch_sub(1) == 1) unfinished_.notify_all();
    }
  }

#if !defined(_WIN32)
  const pid_t process_ = getpid();
#endif
  std::vector<std::thread> workers_;
  std::atomic<bool> busy_{false};
  std::atomic<bool> ending_{false};
  std::atomic<uint32_t> round_{0};
  std::atomic<uint32_t> unfinished_{0};
  Barrier barrier_;
  TeamPolicy policy_;
  bool always_uses_team_ = false;
  std::atomic<bool> failed_{false};
  std::exception_ptr failure_;  // of the member that set `failed_`
  int members_ = 0;
  const void* work_ = nullptr;
  void (*call_)(const void*, Member, float*) = nullptr;
  Arena arena_;
  float* scratch_ = nullptr;
  int avoided_processor_ = -1;
  size_t pinned_ = 0;
};

}  // namespace charloom
