// The memory that the arguments of a kernel point to, found by walking through them: pointers, and
// structs of such.
#pragma once

#include <cstddef>
#include <type_traits>

namespace simt {

// What an argument promises to be memory: one element of a raw pointer's; all rows of a tensor.
struct Reach {
  const void* begin = nullptr;
  size_t bytes = 0;
  int argument = 0;  // its place among the kernel's, from 0
};

struct AnyField {
  template <class T>
  operator T() const;
};
struct AnyNumber {
  template <class T>
    requires(std::is_arithmetic_v<T> || std::is_enum_v<T>)
  operator T() const;
};

// How many values can stand in T{...}: its fields, or the elements of those that are arrays.
template <class T, class... Fields>
constexpr int field_count() {
  if constexpr (requires { T{Fields{}..., AnyField{}}; }) {
    return field_count<T, Fields..., AnyField>();
  } else {
    return sizeof...(Fields);
  }
}
template <class T, int count, class... Fields>
constexpr bool is_numbers_only() {
  if constexpr (count > 0) {
    return is_numbers_only<T, count - 1, Fields..., AnyNumber>();
  } else {
    return requires { T{Fields{}...}; };
  }
}

// visit(field) for the fields of a struct without constructors.
template <class T, class Visit>
void for_fields(const T& value, Visit visit) {
  constexpr int count = field_count<T>();
  auto all = [&](const auto&... fields) { (visit(fields), ...); };
  static_assert(count <= 7, "add a line");
  if constexpr (count == 1) {
    const auto& [a] = value;
    all(a);
  }
  if constexpr (count == 2) {
    const auto& [a, b] = value;
    all(a, b);
  }
  if constexpr (count == 3) {
    const auto& [a, b, c] = value;
    all(a, b, c);
  }
  if constexpr (count == 4) {
    const auto& [a, b, c, d] = value;
    all(a, b, c, d);
  }
  if constexpr (count == 5) {
    const auto& [a, b, c, d, e] = value;
    all(a, b, c, d, e);
  }
  if constexpr (count == 6) {
    const auto& [a, b, c, d, e, f] = value;
    all(a, b, c, d, e, f);
  }
  if constexpr (count == 7) {
    const auto& [a, b, c, d, e, f, g] = value;
    all(a, b, c, d, e, f, g);
  }
}

// visit(reach) for every pointer. A struct that knows better what it reaches has a reach_of() in
// its own namespace.
template <class T, class Visit>
void for_reaches(const T& value, int argument, Visit visit) {
  if constexpr (requires { reach_of(value); }) {
    Reach reach = reach_of(value);
    reach.argument = argument;
    visit(reach);
  } else if constexpr (requires { value.begin(); }) {  // an array in a struct
    for (const auto& element : value) for_reaches(element, argument, visit);
  } else if constexpr (std::is_pointer_v<T>) {
    using Element = std::remove_pointer_t<T>;
    if constexpr (std::is_void_v<Element>) {
      visit(Reach{value, 1, argument});
    } else if constexpr (std::is_object_v<Element>) {
      visit(Reach{value, sizeof(Element), argument});
    }
  } else if constexpr (!std::is_arithmetic_v<T> && !std::is_enum_v<T>) {
    static_assert(std::is_aggregate_v<T>,
                  "a kernel's argument must be a struct whose pointers can be found");
    if constexpr (!is_numbers_only<T, field_count<T>()>()) {
      for_fields(value, [&](const auto& field) { for_reaches(field, argument, visit); });
    }
  }
}

}  // namespace simt
