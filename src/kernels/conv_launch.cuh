// How conv.cu and local.cu launch the kernels made of conv.cuh: which tile, how many parts.
#pragma once
#include <algorithm>
#include <limits>
#include "conv.cuh"
#include "conv_problem.h"
#include "mma_tile.cuh"
#include "ops.h"
#include "tiles.h"

namespace convnet {

// The tiles, (m, n) and per thread. float32 in rows of 16 bytes takes any of them; single elements and float64 take
// the small one, which asks for fewer registers.
using Large = Tile<64, 128, 8, 8>;
using Mid = Tile<48, 128, 12, 8>;
using Wide = Tile<32, 128, 8, 8>;
using Small = Tile<32, 32, 4, 4>;
// On tensor cores there is one, of two or, where numbers are two planes, of four warps across; and, for rows of 16 bytes, another of half
// as many rows: of 192 filters none is in vain, where the first computes 256. Of float32, T, a fourth stage would leave no room for a second
// block; and numbers that are packed in pairs on the way would leave no registers.
template <class Math>
using Mma = MmaTile<Math, 128, 128, 64, Math::planes == 1 ? 64 : 32, 4, Math::planes == 1 ? 2 : 1>;
template <class Math, class T>
using MmaWide = MmaTile<Math, 64, 256, 64, Math::planes == 1 ? 64 : 32, sizeof(T) == 2 ? 4 : 3, Math::planes == 1 ? 2 : 1>;
inline bool has_wide(Dtype dtype, Precision precision) { return dtype == Dtype::bfloat16 || precision != Precision::bf16; }

inline std::int64_t tiles_over(std::int64_t size, int tile) { return ceil_div<std::int64_t>(size, tile); }

// How many rows are computed of the m that there are.
template <class Tile>
std::int64_t rows_in(const Product& p) { return tiles_over(p.m, Tile::m) * Tile::m; }

// So many parts that a large GPU is full (132 multiprocessors, each with blocks_wanted / 132), each with work enough to
// pay for adding up.
template <class Tile>
int pick_parts(const Product& p, std::int64_t blocks_wanted) {
  constexpr std::int64_t least_work = 256;
  const std::int64_t blocks = std::max<std::int64_t>(1, tiles_over(p.m, Tile::m) * tiles_over(p.n, Tile::n) * p.groups);
  return int(std::max<std::int64_t>(1, std::min({blocks_wanted / blocks, p.units * p.unit / least_work, p.units})));
}

// What no table has. Exactly: with the large tile, unless there are few rows or the mid one spares over a fifth of them; the small one where
// there are few columns. As with the parts, shapes alone decide, so that rows with and without padding are summed in the same order.
inline Way exact_by_rule(const Product& p) {
  constexpr std::int64_t blocks_wanted = 512;
  if (p.n <= 2 * Small::n) return {Precision::exact, Size::small, pick_parts<Small>(p, blocks_wanted)};
  if (p.m <= Wide::m) return {Precision::exact, Size::wide, pick_parts<Wide>(p, blocks_wanted)};
  if (5 * rows_in<Mid>(p) < 4 * rows_in<Large>(p)) return {Precision::exact, Size::mid, pick_parts<Mid>(p, blocks_wanted)};
  return {Precision::exact, Size::large, pick_parts<Large>(p, blocks_wanted)};
}

// The same where operands may be rounded: on tensor cores, unless the tile is mostly empty; in the wide one if it wastes a fifth fewer rows.
inline Way rounded_by_rule(Dtype dtype, Precision precision, const Product& p) {
  constexpr std::int64_t blocks_wanted = 264;
  using Usual = Mma<Tf32>;
  using Other = MmaWide<Tf32, float>;
  if (p.m <= Usual::m / 4 || p.n <= Usual::n / 2) return exact_by_rule(p);
  if (has_wide(dtype, precision) && 5 * rows_in<Other>(p) <= 4 * rows_in<Usual>(p) && p.n > Other::n / 2)
    return {precision, Size::mma_wide, pick_parts<Other>(p, blocks_wanted)};
  return {precision, Size::mma, pick_parts<Usual>(p, blocks_wanted)};
}

inline Way pick_way(const Product& p) { return measured_way(Precision::exact, p, exact_by_rule(p)); }

// As `precision` allows, where there are tensor cores.
inline Way pick_way(Stream stream, Dtype dtype, Precision precision, const Product& p) {
  if (!rounds(precision) || computed(dtype) != Dtype::float32 || !has_tensor_cores(stream)) return pick_way(p);
  return measured_way(precision, p, rounded_by_rule(dtype, precision, p));
}

// Calls body(tile, vector): the template arguments of a kernel that is exact. Of bfloat16 the larger tiles would spill.
template <class T, class Body>
void with_tile(const Way& way, bool vector, Body body) {
  if constexpr (sizeof(T) == 4) {
    if (vector && way.size == Size::large) return body(Large{}, std::true_type{});
    if (vector && way.size == Size::mid) return body(Mid{}, std::true_type{});
  }
  if constexpr (sizeof(T) <= 4) {
    if (vector && way.size != Size::small) return body(Wide{}, std::true_type{});
    if (vector) return body(Small{}, std::true_type{});
  }
  body(Small{}, std::false_type{});
}

// The same of one that may be on tensor cores.
template <class T, class Body>
void with_any_tile(const Way& way, bool vector, Body body) {
  const auto with_math = [&]<class Math>(Math) {
    if (!vector) return body(Mma<Math>{}, std::false_type{});  // which adds up in the same order
    if constexpr (sizeof(T) == 2 || !std::is_same_v<Math, Bf16>)
      if (way.size == Size::mma_wide) return body(MmaWide<Math, T>{}, std::true_type{});
    body(Mma<Math>{}, std::true_type{});
  };
  if constexpr (sizeof(T) == 4) {
    if (way.precision == Precision::tf32) return with_math(Tf32{});
    if (way.precision == Precision::bf16) return with_math(Bf16{});
    if (way.precision == Precision::bf16x3) return with_math(Bf16x3{});
  } else if constexpr (sizeof(T) == 2) {
    if (way.precision == Precision::bf16) return with_math(Bf16{});
  }
  with_tile<T>(way, vector, body);
}

inline std::int64_t piece_of(Dtype dtype) { return dtype == Dtype::bfloat16 ? piece<bfloat16> : piece<float>; }

// Images of so many pixels, or filters, in whole pieces.
template <class Tensor>
std::int64_t columns_of(std::int64_t pixels, const Tensor& tensor) {
  const std::int64_t size = piece_of(tensor.dtype);
  return pixels * ceil_div(tensor.shape.images(), size) * size;
}

template <class Filters, class Acts>
Product backward_filters_product(const Filters& filters, const Acts& acts, int groups) {
  return {"conv_backward_filters", filters.shape[3] / groups, filters.shape.rows(), groups, acts.shape[1] * acts.shape[2], columns_of(1, acts)};
}

// The parts of an output: as it, but for their own padding.
inline std::int64_t part_size(const Out& output) { return columns_of(output.shape.rows(), output); }

inline std::int64_t parts_bytes(int parts, const Out& output) {
  return parts > 1 ? parts * part_size(output) * size_of(computed(output.dtype)) : 0;
}

// What the kernels count in 32 bits: rows, columns and k. A pitch of 64 bits costs 7 registers and spills.
inline constexpr std::int64_t most_countable = std::numeric_limits<int>::max() / 8;
template <class Tensor>
bool is_countable(const Tensor& tensor) {
  const Shape& shape = tensor.shape;
  return std::max({shape.rows(), tensor.pitch, columns_of(shape[1] * shape[2], tensor)}) <= most_countable;
}

// What is stored in bfloat16 has been rounded to it: it is multiplied as it is, or as float32.
inline void check_precision(const char* op, Dtype dtype, Precision precision) {
  if (dtype == Dtype::bfloat16 && (precision == Precision::tf32 || precision == Precision::bf16x3))
    fail_check(op, "activities in bfloat16: expected precision bf16 or exact");
}

// Every piece of every row can be moved at once, those of a group's filters too.
template <class Filters, class A, class B>
bool is_vector(const Filters& filters, const A& a, const B& b, int groups) {
  return is_vectorizable(filters) && is_vectorizable(a) && is_vectorizable(b) && (groups == 1 || filters.shape[3] / groups % piece_of(filters.dtype) == 0);
}

// Runs body(where the product goes, its epilogue), then adds up the parts if there are several. T: of the output.
template <class T, class Body>
void with_parts(Stream stream, int parts, const Out& output, const Out& workspace, const Epilogue<T>& epilogue, Body body) {
  using Sum = Computed<T>;
  Images<T> target = images_of<T>(output);
  if (parts == 1) return body(target, epilogue);
  Sum* const sums = static_cast<Sum*>(workspace.ptr);
  const std::int64_t pitch = columns_of(1, output);
  body(Images<Sum>{sums, target.channels, target.height, target.width, target.images, pitch, false}, Epilogue<Sum>{});
  launch<sum_parts_kernel<T>>(rows_grid(output.shape.rows(), target.images), stream,
         Rows<const Sum>{sums, parts * target.rows(), target.images, pitch, false}, rows_of<T>(output), parts,
         target.height * target.width, epilogue);
}

template <class T, class Body>
void with_parts(Stream stream, int parts, const Out& output, const Out& workspace, Body body) {
  with_parts<T>(stream, parts, output, workspace, Epilogue<T>{}, [&](const auto& target, const auto&) { body(target); });
}

// A, B: the types of the operands in memory.
template <class Tile, class A, class B>
Grid grid_of(const Product& p, const Conv& conv) {
  const std::int64_t phases = p.groups / conv.groups;  // or pixels
  const std::int64_t blocks = tiles_over(p.m, Tile::m) * tiles_over(p.n, Tile::n) * phases;
  return {dim3(unsigned(blocks), unsigned(conv.groups), unsigned(conv.parts)), dim3(Tile::threads), Tile::template shared_bytes<A, B>};
}

}  // namespace convnet
