// Random numbers by counter: the same words for the same place on every backend, nothing to store.
#pragma once
#include <cmath>
#include "tensor.h"

namespace convnet {

struct RandomWords {
  std::uint32_t word[4];

  // Where i is not known to the compiler: an array that is indexed lies in local memory, these four stay in registers.
  HOST_DEVICE std::uint32_t any(int i) const {
    const std::uint32_t low = i & 1 ? word[1] : word[0], high = i & 1 ? word[3] : word[2];
    return i & 2 ? high : low;
  }
};

// Rounds of Philox; a recursion and no loop, since compilers vectorise over the images only what has no loop inside.
template <int rounds>
HOST_DEVICE inline RandomWords philox_rounds(RandomWords c, std::uint32_t k0, std::uint32_t k1) {
  if constexpr (rounds == 0) {
    return c;
  } else {
    const std::uint64_t a = std::uint64_t(0xD2511F53u) * c.word[0], b = std::uint64_t(0xCD9E8D57u) * c.word[2];
    c = {{std::uint32_t(b >> 32) ^ c.word[1] ^ k0, std::uint32_t(b), std::uint32_t(a >> 32) ^ c.word[3] ^ k1, std::uint32_t(a)}};
    return philox_rounds<rounds - 1>(c, k0 + 0x9E3779B9u, k1 + 0xBB67AE85u);  // golden ratio, sqrt(3) - 1
  }
}

// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
HOST_DEVICE inline RandomWords philox(RandomWords counter, std::uint32_t k0, std::uint32_t k1) {
  return philox_rounds<10>(counter, k0, k1);
}

// The words of a place (element / 4, image) at a step of the run; key: the run's seed and what the words are for.
HOST_DEVICE inline RandomWords random_words(std::uint32_t place, std::uint32_t image, std::uint64_t step, std::uint32_t seed, std::uint32_t purpose) {
  return philox({{place, image, std::uint32_t(step), std::uint32_t(step >> 32)}}, seed, purpose);
}

// From 0 on and below 1, of 24 bits, which every type holds.
template <class T>
HOST_DEVICE T random_fraction(std::uint32_t word) {
  return T(word >> 8) * T(0x1p-24);
}

// Sine and cosine of so many turns, from 0 to 1. On a GPU not by sin and cos: their branch for arguments above 100000,
// which is never taken here, asks for local memory.
template <class T>
HOST_DEVICE T sin_of_turns(T turns) {
#ifdef __CUDA_ARCH__
  return sinpi(2 * turns);
#else
  return std::sin(turns * T(6.283185307179586));
#endif
}
template <class T>
HOST_DEVICE T cos_of_turns(T turns) {
#ifdef __CUDA_ARCH__
  return cospi(2 * turns);
#else
  return std::cos(turns * T(6.283185307179586));
#endif
}

// Number i of four standard normal ones (Box and Muller 1958): words 0 and 1 make the first two, 2 and 3 the others.
// Of the first word of a pair the upper 23 bits count, and a half, so that its logarithm is finite.
template <class T>
HOST_DEVICE T random_normal(const RandomWords& words, int i) {
  const std::uint32_t first = words.any(i & 2), second = words.any(i | 1);
  const T radius = std::sqrt(-2 * std::log((T(first >> 9) + T(0.5)) * T(0x1p-23)));
  const T turns = random_fraction<T>(second);
  return radius * (i % 2 ? sin_of_turns(turns) : cos_of_turns(turns));
}

// One of 0, ..., range - 1.
HOST_DEVICE inline int random_below(std::uint32_t word, int range) {
  return int(std::uint64_t(word) * std::uint32_t(range) >> 32);
}

}  // namespace convnet
