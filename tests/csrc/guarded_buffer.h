// A tensor's memory, in which no stray access goes unnoticed: it lies in a mapping of its own,
// close before a page that must not be touched, and in a page of known bytes that must not change.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

constexpr unsigned char kCanary = 0xA5;

template <typename T>
T read_one() {
  T value;
  if (std::fread(&value, sizeof(T), 1, stdin) != 1) std::exit(2);
  return value;
}

class GuardedBuffer {
 public:
  GuardedBuffer(int64_t bytes, int64_t remainder) : bytes_(bytes) {
    const int64_t page = sysconf(_SC_PAGESIZE);
    const int64_t writable = ((bytes + 16) / page + 2) * page;
    const int64_t mapped = writable + 2 * page;
    auto* start = static_cast<unsigned char*>(
        mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (start == MAP_FAILED) std::exit(2);
    first_ = start + page;
    last_ = first_ + writable;
    if (mprotect(first_, writable, PROT_READ | PROT_WRITE) != 0) std::exit(2);
    std::memset(first_, kCanary, writable);
    data_ = last_ - bytes;
    while (reinterpret_cast<uintptr_t>(data_) % 16 != static_cast<uintptr_t>(remainder)) --data_;
  }

  unsigned char* data() const { return data_; }

  bool is_intact() const {
    for (const unsigned char* byte = first_; byte < last_; ++byte) {
      if ((byte < data_ || byte >= data_ + bytes_) && *byte != kCanary) return false;
    }
    return true;
  }

 private:
  int64_t bytes_;
  unsigned char* first_;
  unsigned char* last_;
  unsigned char* data_;
};
