// What the copies of the kernels that instrument.py writes switch their mutants with. Included before anything else.
#pragma once
#include <type_traits>
#include <utility>

namespace mutation {

// A byte for each site: 0: as written; 1, 2: that variant; watched: the site's number is wanted when it is first met.
// A module exports nothing but names like this one's.
extern unsigned char states[] __asm__("PyInit_mutation_states");
extern unsigned char variants[] __asm__("PyInit_mutation_variants");  // bit v: variant v changes something, once met
constexpr unsigned char watched = 255;

// What becomes of a site that is not 0: the variant, or 0 and a note of which of `possible` there are.
int touched(int site, unsigned char possible);

constexpr int variant(int site, unsigned char possible = 0b010) {
  if (std::is_constant_evaluated()) return 0;
  if (states[site]) [[unlikely]] return touched(site, possible);
  return 0;
}

// One more or one less; a flag flipped. What is no number stays as it is.
template <class T>
constexpr decltype(auto) shifted(int site, T&& value) {
  using Value = std::remove_cvref_t<T>;
  if constexpr (std::is_same_v<Value, bool>) {
    return bool(value != (variant(site) == 1));
  } else if constexpr (std::is_arithmetic_v<Value> || (std::is_enum_v<Value> && std::is_convertible_v<Value, int>)) {
    const int which = variant(site, 0b110);
    return decltype(value + 0)(which == 0 ? value : which == 1 ? value + 1 : value - 1);
  } else {
    variant(site, 0);
    return std::forward<T>(value);
  }
}

// The left side of an assignment.
template <class T>
struct Target {
  int site;
  T& to;

#define MUTATION_ASSIGNMENT(written, mutant)                          \
  template <class V>                                                  \
  constexpr T& operator written(V&& value) const {                    \
    if constexpr (requires { to mutant value; }) {                    \
      if (variant(site)) return to mutant std::forward<V>(value), to; \
    } else {                                                          \
      variant(site, 0);                                               \
    }                                                                 \
    return to written std::forward<V>(value), to;                     \
  }
  MUTATION_ASSIGNMENT(=, +=)
  MUTATION_ASSIGNMENT(+=, =)
  MUTATION_ASSIGNMENT(-=, =)
  MUTATION_ASSIGNMENT(*=, =)
  MUTATION_ASSIGNMENT(/=, =)
  MUTATION_ASSIGNMENT(%=, =)
  MUTATION_ASSIGNMENT(&=, =)
  MUTATION_ASSIGNMENT(|=, =)
  MUTATION_ASSIGNMENT(^=, =)
  MUTATION_ASSIGNMENT(<<=, =)
  MUTATION_ASSIGNMENT(>>=, =)
#undef MUTATION_ASSIGNMENT
};
template <class T>
constexpr Target<T> target(int site, T& to) {
  return {site, to};
}

}  // namespace mutation
