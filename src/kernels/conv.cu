// Convolution: launchers.
#include <algorithm>
#include <limits>
#include "conv.cuh"
#include "conv_problem.h"
#include "ops.h"

namespace convnet {
namespace {

// The tiles, (m, n) and per thread. float32 in rows of 16 bytes takes any of them; single elements and float64 take
// the small one, which asks for fewer registers.
using Large = Tile<64, 128, 8, 8>;
using Wide = Tile<32, 128, 8, 8>;
using Small = Tile<32, 32, 4, 4>;
enum class Size { large, wide, small };
struct { int m, n; } constexpr tiles[] = {{Large::m, Large::n}, {Wide::m, Wide::n}, {Small::m, Small::n}};

// The product that a call is: (m, n) of each group (and phase, of conv_backward_data), and its k: units that no part
// divides, of so many each.
struct Product {
  std::int64_t m, n, groups, units, unit;
};

std::int64_t tiles_over(std::int64_t size, int tile) { return ceil_div<std::int64_t>(size, tile); }

// The large tile unless it wastes over a fifth more rows than the wide one; the small one where there are few columns.
// As with the parts, shapes alone decide, so that rows with and without padding are summed in the same order.
Size pick_tile(const Product& p) {
  if (p.n <= 2 * Small::n) return Size::small;
  const std::int64_t wide = tiles_over(p.m, Wide::m) * Wide::m, large = tiles_over(p.m, Large::m) * Large::m;
  return 5 * wide < 4 * large ? Size::wide : Size::large;
}

// How many blocks share the k of a tile: so many that a large GPU is full (132 multiprocessors with 4 blocks each),
// each with work enough to pay for adding up.
int pick_parts(const Product& p) {
  constexpr std::int64_t blocks_wanted = 512, least_work = 256;
  const auto [m, n] = tiles[int(pick_tile(p))];
  const std::int64_t blocks = std::max<std::int64_t>(1, tiles_over(p.m, m) * tiles_over(p.n, n) * p.groups);
  return int(std::max<std::int64_t>(1, std::min({blocks_wanted / blocks, p.units * p.unit / least_work, p.units})));
}

// Calls body(tile, vector): the kernel's template arguments.
template <class T, class Body>
void with_tile(Size size, bool vector, Body body) {
  if constexpr (sizeof(T) == 4) {
    if (vector && size == Size::large) return body(Large{}, std::true_type{});
    if (vector && size == Size::wide) return body(Wide{}, std::true_type{});
    if (vector) return body(Small{}, std::true_type{});
  }
  body(Small{}, std::false_type{});
}

std::int64_t columns_of(std::int64_t pixels, Shape shape) { return pixels * ceil_div<std::int64_t>(shape.images(), quad) * quad; }

Product forward_product(Shape filters, Shape acts, int groups) {
  return {filters[3] / groups, columns_of(acts[1] * acts[2], acts), groups, filters[0], filters[1] * filters[2]};
}

Product backward_data_product(Shape filters, Shape images, int stride, int groups) {
  const std::int64_t s = stride, area = ceil_div(images[1], s) * ceil_div(images[2], s);  // of the phase with the most pixels
  const std::int64_t phases = std::min(s, images[1]) * std::min(s, images[2]);
  const std::int64_t taps = ceil_div(filters[1], s) * ceil_div(filters[2], s);
  return {filters[0], columns_of(area, images), groups * phases, ceil_div<std::int64_t>(filters[3] / groups, quad), quad * taps};
}

Product backward_filters_product(Shape filters, Shape acts, int groups) {
  return {filters[3] / groups, filters.rows(), groups, acts[1] * acts[2], columns_of(1, acts)};
}

// The parts of an output: as it, but for their own padding.
std::int64_t part_size(const Shape& output) { return columns_of(output.rows(), output); }

std::int64_t parts_bytes(int parts, const Out& output) {
  return parts > 1 ? parts * part_size(output.shape) * size_of(output.dtype) : 0;
}

// What the kernels count in 32 bits: rows, columns and k. A pitch of 64 bits costs 7 registers and spills.
template <class Tensor>
bool is_countable(const Tensor& tensor) {
  constexpr std::int64_t most = std::numeric_limits<int>::max() / 8;
  const Shape& shape = tensor.shape;
  return std::max({shape.rows(), tensor.pitch, columns_of(shape[1] * shape[2], shape)}) <= most;
}

// `images`, `filters` and `acts` are In or Out: a tensor or its gradient.
#define CHECK_CONV(images, filters, acts)                                         \
  conv_problem(__func__, images, filters, acts, stride, padding, groups);         \
  CHECK(groups <= 65535);                                                         \
  CHECK(is_countable(images) && is_countable(filters) && is_countable(acts))

#define CHECK_WORKSPACE(workspace, bytes)   \
  CHECK_DTYPE(workspace, Dtype::uint8);     \
  CHECK((workspace).shape.size() >= (bytes))

// Every quad of every row is 16 bytes, those of a group's filters too.
template <class Filters, class A, class B>
bool is_vector(const Filters& filters, const A& a, const B& b, int groups) {
  return is_vectorizable(filters) && is_vectorizable(a) && is_vectorizable(b) && (groups == 1 || filters.shape[3] / groups % quad == 0);
}

// Runs body(where the product goes), then adds up the parts if there are several.
template <class T, class Body>
void with_parts(Stream stream, int parts, const Out& output, const Out& workspace, Body body) {
  Images<T> target = images_of<T>(output);
  if (parts == 1) return body(target);
  T* const sums = static_cast<T*>(workspace.ptr);
  const std::int64_t pitch = columns_of(1, output.shape);
  body(Images<T>{sums, target.channels, target.height, target.width, target.images, pitch, false});
  launch(sum_parts_kernel<T>, rows_grid(output.shape.rows(), target.images), stream,
         Rows<const T>{sums, parts * target.rows(), target.images, pitch, false}, rows_of<T>(output), parts);
}

template <class Tile>
Grid grid_of(const Product& p, const Conv& conv) {
  const std::int64_t phases = p.groups / conv.groups;
  const std::int64_t blocks = tiles_over(p.m, Tile::m) * tiles_over(p.n, Tile::n) * phases;
  return {dim3(unsigned(blocks), unsigned(conv.groups), unsigned(conv.parts)), dim3(Tile::threads)};
}

}  // namespace

void conv_forward(Stream stream, In images, In filters, Out acts, Out workspace, int stride, int padding, int groups) {
  CHECK_CONV(images, filters, acts);
  const Product product = forward_product(filters.shape, acts.shape, groups);
  const Conv conv{stride, padding, groups, pick_parts(product), part_size(acts.shape)};
  CHECK_WORKSPACE(workspace, parts_bytes(conv.parts, acts));
  WITH_FLOAT_TYPE(images, [&]<class T>(T) {
    with_parts<T>(stream, conv.parts, acts, workspace, [&](Images<T> target) {
      with_tile<T>(pick_tile(product), is_vector(filters, images, acts, groups), [&]<class Tile, class Vector>(Tile, Vector) {
        launch(conv_forward_kernel<T, Tile, Vector::value>, grid_of<Tile>(product, conv), stream,
               images_of<T>(images), images_of<T>(filters), target, conv);
      });
    });
  });
}

void conv_backward_data(Stream stream, In acts_grad, In filters, Out images_grad, Out workspace, int stride, int padding, int groups) {
  CHECK_CONV(images_grad, filters, acts_grad);
  const Product product = backward_data_product(filters.shape, images_grad.shape, stride, groups);
  const Conv conv{stride, padding, groups, pick_parts(product), part_size(images_grad.shape)};
  CHECK_WORKSPACE(workspace, parts_bytes(conv.parts, images_grad));
  WITH_FLOAT_TYPE(images_grad, [&]<class T>(T) {
    with_parts<T>(stream, conv.parts, images_grad, workspace, [&](Images<T> target) {
      with_tile<T>(pick_tile(product), is_vector(filters, acts_grad, images_grad, groups), [&]<class Tile, class Vector>(Tile, Vector) {
        launch(conv_backward_data_kernel<T, Tile, Vector::value>, grid_of<Tile>(product, conv), stream,
               images_of<T>(acts_grad), images_of<T>(filters), target, int(tiles_over(product.n, Tile::n)), conv);
      });
    });
  });
}

void conv_backward_filters(Stream stream, In images, In acts_grad, Out filters_grad, Out workspace, int stride, int padding, int groups) {
  CHECK_CONV(images, filters_grad, acts_grad);
  const Product product = backward_filters_product(filters_grad.shape, acts_grad.shape, groups);
  const Conv conv{stride, padding, groups, pick_parts(product), part_size(filters_grad.shape)};
  CHECK_WORKSPACE(workspace, parts_bytes(conv.parts, filters_grad));
  WITH_FLOAT_TYPE(images, [&]<class T>(T) {
    with_parts<T>(stream, conv.parts, filters_grad, workspace, [&](Images<T> target) {
      with_tile<T>(pick_tile(product), is_vector(filters_grad, images, acts_grad, groups), [&]<class Tile, class Vector>(Tile, Vector) {
        launch(conv_backward_filters_kernel<T, Tile, Vector::value>, grid_of<Tile>(product, conv), stream,
               images_of<T>(images), images_of<T>(acts_grad), target, conv);
      });
    });
  });
}

std::int64_t conv_forward_workspace(Stream, In images, In filters, Out acts, int stride, int padding, int groups) {
  CHECK_CONV(images, filters, acts);
  return parts_bytes(pick_parts(forward_product(filters.shape, acts.shape, groups)), acts);
}

std::int64_t conv_backward_data_workspace(Stream, In acts_grad, In filters, Out images_grad, int stride, int padding, int groups) {
  CHECK_CONV(images_grad, filters, acts_grad);
  return parts_bytes(pick_parts(backward_data_product(filters.shape, images_grad.shape, stride, groups)), images_grad);
}

std::int64_t conv_backward_filters_workspace(Stream, In images, In acts_grad, Out filters_grad, int stride, int padding, int groups) {
  CHECK_CONV(images, filters_grad, acts_grad);
  return parts_bytes(pick_parts(backward_filters_product(filters_grad.shape, acts_grad.shape, groups)), filters_grad);
}

}  // namespace convnet
