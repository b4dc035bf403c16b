// The table of measured tiles, one for each backend's module.
#include "tiles.h"
#include <mutex>

namespace convnet {
namespace {

constexpr std::int64_t most_parts = 65535;  // the third dimension of a grid

struct Table {
  std::mutex mutex;
  Tiles lines;
};
Table& table() {
  static Table table;
  return table;
}
thread_local std::pair<TileKey, std::pair<Size, int>> last;

}  // namespace

void set_tiles(const Tiles& tiles) {
  for (const auto& [key, way] : tiles) {
    const auto& [size, parts] = way;
    const Precision precision = std::get<1>(key);
    const std::int64_t units = std::get<5>(key);
    CHECK(1 <= parts && parts <= units && parts <= most_parts);
    CHECK(!on_tensor_cores(size) || rounds(precision));
  }
  const std::lock_guard lock(table().mutex);
  table().lines = tiles;
}

Tiles::value_type last_tile() { return last; }

Way measured_way(Precision precision, const Product& p, const Way& rule) {
  last = {{p.op, precision, p.m, p.n, p.groups, p.units, p.unit}, {rule.size, rule.parts}};
  {
    const std::lock_guard lock(table().mutex);
    if (const auto line = table().lines.find(last.first); line != table().lines.end()) last.second = line->second;
  }
  const auto [size, parts] = last.second;
  return {on_tensor_cores(size) ? precision : Precision::exact, size, parts};
}

}  // namespace convnet
