// Which tile a product of conv, fc or local takes on a GPU, and how many blocks share its k: a table of measurements in place of
// the rule of shapes (conv_launch.cuh). One for all devices, so that bits do not depend on the mapping.
#pragma once
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include "ops.h"

namespace convnet {

// The product that a call is: (m, n) of each group, and of each phase of conv_backward_data and pixel of local, and its
// k: units that no part divides, of so many each. `op`: that of the kernels; fc's are conv's.
struct Product {
  const char* op;
  std::int64_t m, n, groups, units, unit;
};

// Whether operands may be rounded for tensor cores.
inline bool rounds(Precision precision) { return precision != Precision::exact && precision != Precision::fast; }

// How a product is computed: on tensor cores unless `exact`, in which tile, and how many blocks share the k of a tile.
enum class Size : std::uint8_t { large, mid, wide, small, mma, mma_wide };
inline bool on_tensor_cores(Size size) { return size >= Size::mma; }
struct Way {
  Precision precision;
  Size size;
  int parts;
};

// Op, the precision asked for, m, n, groups, units, unit -> tile, parts. Whole sizes and no classes of them: how many blocks
// are left for the last turn of the multiprocessors, on which a tile wins or loses, changes with every one.
using TileKey = std::tuple<std::string, Precision, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
using Tiles = std::map<TileKey, std::pair<Size, int>>;

// Takes the place of the table before. A plan made before has its workspace from that one: where it is too small now, the op
// says so. Python sets it once, when the backend is loaded (convnet/backends.py).
void set_tiles(const Tiles& tiles);

// The product that this thread asked for last, in an op or in its workspace, and its way: what benchmarks/tune.py measures.
Tiles::value_type last_tile();

// The way of the table, or else that of the rule.
Way measured_way(Precision precision, const Product& product, const Way& rule);

}  // namespace convnet
