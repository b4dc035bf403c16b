// Convolution: device code. All three are the product of tile.cuh; what differs is what m, n and k stand for:
//                          m         n                                        k, the lowest first
//   conv_forward           filter    pixel and image of acts                  channel, j, i
//   conv_backward_data     channel   pixel and image of images_grad           filter, tap x, tap y
//   conv_backward_filters  filter    channel, i and j                         image, x, y
// Images come in pieces that belong to one pixel, so a tile may hold many pixels of few images or few of many.
#pragma once
#include "tile.cuh"

namespace convnet {

struct Conv {
  int stride, padding, groups;
  int parts;               // blocks that share the k of a tile
  std::int64_t part_size;  // elements from one part of the output to the next
};

// How outputs see the pixels of their source along one dimension: tap t of output o is the product of source pixel
// origin + o stride + t and filter row (or column) first_tap + t tap_step.
struct Window {
  int outputs, first_output, output_step;  // output o is pixel first_output + o output_step
  int origin, stride;
  int taps, first_tap, tap_step;

  // That of one output alone.
  __device__ Window only(int output) const {
    return {1, first_output + output * output_step, output_step, origin + output * stride, stride, taps, first_tap, tap_step};
  }

  // Leaves out the taps that lie outside the source, of `size` pixels, for all outputs first to last.
  __device__ void clip(int first, int last, int size) {
    const int begin = max(0, -(origin + last * stride)), end = min(taps, size - (origin + first * stride));
    origin += begin;
    first_tap += begin * tap_step;
    taps = max(0, end - begin);
  }
};

// Every output is there, every tap in order.
__device__ inline Window forward_window(int outputs, int filter_size, int stride, int padding) {
  return {outputs, 0, 1, -padding, stride, filter_size, 0, 1};
}

// The pixels first, first + stride, ... of images_grad: they meet every stride-th tap, and neighbours meet neighbouring
// acts. So they are a convolution of stride 1 with these taps, the last one first. No tap is tried in vain.
__device__ inline Window backward_window(int first, int pixels, int filter_size, int stride, int padding) {
  const int tap = (first + padding) % stride;  // the first that meets them
  const int taps = tap < filter_size ? (filter_size - 1 - tap) / stride + 1 : 0;
  return {(pixels - 1 - first) / stride + 1, first, stride, (first + padding) / stride - taps + 1, 1,
          taps, tap + (taps - 1) * stride, -stride};
}

// The range of things that a part of the k is made of.
struct Range {
  int first, count;
};
__device__ inline Range range_of(int part, int parts, int things) {
  const int first = int(std::int64_t(things) * part / parts);
  return {first, int(std::int64_t(things) * (part + 1) / parts) - first};
}

template <class T>
__device__ int pieces_of(int count) { return ceil_div(count, piece<T>); }

// Leaves out the taps that no column of the tile needs.
template <class T, class Tile>
__device__ void clip_windows(int first_piece, int images, int height, int width, Window& rows, Window& columns) {
  const int outputs = rows.outputs * columns.outputs;
  const int first = first_piece / pieces_of<T>(images), last = min(outputs, ceil_div(first_piece + Tile::n / piece<T>, pieces_of<T>(images))) - 1;
  const bool one_row = first / columns.outputs == last / columns.outputs;
  rows.clip(first / columns.outputs, last / columns.outputs, height);
  columns.clip(one_row ? first % columns.outputs : 0, one_row ? last % columns.outputs : columns.outputs - 1, width);
}

// Where element n of pixel (y, x) of channel c is; rows are counted in 32 bits, elements in 64. It is linear: the
// kernels add what is constant in a thread, once, to what changes along k.
template <class T>
__device__ std::int64_t offset_of(const Images<const T>& tensor, int c, int y, int x, int n) {
  return std::int64_t((c * tensor.height + y) * tensor.width + x) * int(tensor.pitch) + n;
}

// A piece of the columns of a tile: images of one output pixel. The pieces after the last are fetched as the last one; what
// lies outside D may hold anything, since it is not stored.
template <class T>
struct Column {
  int y, x, n;
  bool exists;
  __device__ Column(int index, int images, const Window& rows, const Window& columns) {
    const int pieces = pieces_of<T>(images), last = rows.outputs * columns.outputs * pieces - 1;
    exists = index <= last;
    index = min(index, last);
    const int pixel = index / pieces;
    y = pixel / columns.outputs;
    x = pixel % columns.outputs;
    n = index % pieces * piece<T>;
  }
};

// B of conv_forward and conv_backward_data: a thread's row is a channel and a tap, its columns are windows.
template <class T, class Tile, bool Vector>
struct WindowRows {
  using Share = typename Tile::template RowShare<T, Tile::n>;
  const Images<const T>& source;
  const T* start[Share::pieces];  // of the windows, in the first channel of the sum
  int y[Share::pieces], x[Share::pieces], count[Share::pieces];

  __device__ WindowRows(const Images<const T>& source, int first_channel, int first_piece, const Window& rows, const Window& columns)
      : source(source) {
#pragma unroll
    for (int index = 0; index < Share::pieces; ++index) {
      const Column<T> column(first_piece + Share::column(index) / piece<T>, source.images, rows, columns);
      y[index] = column.y * rows.stride + rows.origin;
      x[index] = column.x * columns.stride + columns.origin;
      count[index] = source.images - column.n;
      start[index] = source.data + offset_of(source, first_channel, y[index], x[index], column.n);
    }
  }

  __device__ void fetch(Share& share, bool inside, const Digits& k) const {
    const std::int64_t offset = offset_of(source, k.low, k.high, k.mid, 0);
#pragma unroll
    for (int index = 0; index < Share::pieces; ++index) {
      const bool meets = unsigned(y[index] + k.high) < unsigned(source.height) && unsigned(x[index] + k.mid) < unsigned(source.width);
      share.template load<Vector, false>(index, inside && meets, start[index] + offset, count[index]);
    }
  }
};

// Stores the tile of conv_forward and conv_backward_data: rows are channels of the output, columns its pixels and images.
// T: of what was multiplied.
template <class T, class Tile, bool Vector, class Target, class Sum>
__device__ void store_channels(const Images<Target>& target, int first_channel, int first_row, int rows_left, int first_piece,
                               const Window& rows, const Window& columns, const typename Tile::template Sums<Sum>& sums, const Epilogue<Target>& epilogue) {
#pragma unroll
  for (int j = 0; j < Tile::runs_n; ++j) {
    const Column<T> column(first_piece + Tile::column(j) / piece<T>, target.images, rows, columns);
    if (!column.exists) continue;
    const int y = rows.first_output + column.y * rows.output_step, x = columns.first_output + column.x * columns.output_step;
    const int n = column.n + Tile::column(j) % piece<T>;
#pragma unroll
    for (int i = 0; i < Tile::runs_m * Tile::run_m; ++i) {
      const int row = Tile::row(i / Tile::run_m) + i % Tile::run_m;
      Run<Sum, Tile::run_n> values;
#pragma unroll
      for (int e = 0; e < Tile::run_n; ++e) values.at[e] = sums.at(i, j * Tile::run_n + e);
      if (row < rows_left)
        store_run<Vector>(target.row(first_channel + first_row + row, y, x) + n, values, target.images - n, target.add,
                          epilogue, first_channel + first_row + row);
    }
  }
}

// A tile of acts: filters from first_filter of the block's group on, columns from first_piece on, summed over the block's
// part of the channels. Shared with local.cuh, as are the two below. T: of images and acts; but parts of a sum are not
// rounded to it (Target), and filters need not be (Filter).
template <class T, class Tile, bool Vector, class Filter, class Target>
__device__ void forward_tile(const Images<const T>& images, const Images<const Filter>& filters, Images<Target> acts, const Conv& conv,
                             int first_filter, int first_piece, Window rows, Window columns, const Epilogue<Target>& epilogue = {}) {
  const int C = filters.channels, F = filters.images / conv.groups, g = int(blockIdx.y);
  clip_windows<T, Tile>(first_piece, acts.images, images.height, images.width, rows, columns);
  const Range c = range_of(int(blockIdx.z), conv.parts, C);
  const int count = c.count * rows.taps * columns.taps;

  using ShareA = typename Tile::template RowShare<Filter, Tile::m>;
  using ShareB = typename Tile::template RowShare<T, Tile::n>;
  const WindowRows<T, Tile, Vector> windows(images, g * C + c.first, first_piece, rows, columns);
  const Filter* start[ShareA::pieces];  // of the thread's filters, at the first channel and tap
  int left[ShareA::pieces];
#pragma unroll
  for (int index = 0; index < ShareA::pieces; ++index) {
    const int f = min(first_filter + ShareA::column(index), (F - 1) / piece<Filter> * piece<Filter>);
    start[index] = filters.data + offset_of(filters, c.first, rows.first_tap, columns.first_tap, g * F + f);
    left[index] = F - f;
  }
  Walk<Tile::depth> walk(c.count, columns.taps, count, ShareA::k());
  typename Tile::template Sums<Computed<T>> sums = {};
  Tile::template multiply<ShareA, ShareB>(count, sums, [&](ShareA& a, ShareB& b) {
    const std::int64_t offset = offset_of(filters, walk.at.low, walk.at.high, walk.at.mid, 0);
#pragma unroll
    for (int index = 0; index < ShareA::pieces; ++index)
      a.template load<Vector, false>(index, walk.left > 0, start[index] + offset, left[index]);
    windows.fetch(b, walk.left > 0, walk.at);
    walk.advance();
  });

  acts.data += blockIdx.z * conv.part_size;
  store_channels<T, Tile, Vector>(acts, g * F, first_filter, F - first_filter, first_piece, rows, columns, sums, epilogue);
}

// Blocks: x = tile of filters of the group, then tile of columns; y = group; z = part of the channels, which has no epilogue.
//   acts[f,y,x,n] = sum over i,j,c of images[g C + c, y stride - padding + i, x stride - padding + j, n] * filters[c,i,j,f]
template <class T, class Tile, bool Vector, class Filter, class Target>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
conv_forward_kernel(Images<const T> images, Images<const Filter> filters, Images<Target> acts, Conv conv, Epilogue<Target> epilogue) {
  const int tiles = ceil_div(filters.images / conv.groups, Tile::m);
  forward_tile<T, Tile, Vector>(images, filters, acts, conv, int(blockIdx.x) % tiles * Tile::m, int(blockIdx.x) / tiles * (Tile::n / piece<T>),
                                forward_window(acts.height, filters.height, conv.stride, conv.padding),
                                forward_window(acts.width, filters.width, conv.stride, conv.padding), Epilogue<Target>{epilogue.biases, epilogue.relu});
}

// A tile of images_grad: channels from first_channel of the block's group on, columns from first_piece on, summed over the
// block's part of the filters. From the filters of a pixel of acts to those of the next there are `untied` rows: none
// where all pixels share them.
template <class T, class Tile, bool Vector, class Filter, class Target>
__device__ void backward_data_tile(const Images<const T>& acts_grad, const Images<const Filter>& filters, Images<Target> images_grad, const Conv& conv,
                                   int untied, int first_channel, int first_piece, Window rows, Window columns, const Epilogue<Target>& epilogue = {}) {
  const int C = filters.channels, F = filters.images / conv.groups, g = int(blockIdx.y);
  clip_windows<T, Tile>(first_piece, images_grad.images, acts_grad.height, acts_grad.width, rows, columns);
  const Range pieces = range_of(int(blockIdx.z), conv.parts, pieces_of<Filter>(F));  // no piece of filters belongs to two taps
  constexpr int size = piece<Filter>;
  const Range f = {pieces.first * size, min(pieces.count * size, F - pieces.first * size)};
  const int count = pieces.count * size * rows.taps * columns.taps;

  using ShareA = typename Tile::template ColumnShare<Filter, Tile::m>;
  using ShareB = typename Tile::template RowShare<T, Tile::n>;
  const WindowRows<T, Tile, Vector> windows(acts_grad, g * F + f.first, first_piece, rows, columns);
  const Filter* start[ShareA::pieces];  // of the filters' channels that the thread fetches, at the first tap
  const std::int64_t first_pixel = std::int64_t(rows.origin * acts_grad.width + columns.origin) * untied * int(filters.pitch);
#pragma unroll
  for (int index = 0; index < ShareA::pieces; ++index) {
    const int c = min(first_channel + ShareA::column(index), C - 1);
    start[index] = filters.data + first_pixel + offset_of(filters, c, rows.first_tap, columns.first_tap, g * F + f.first);
  }
  Walk<Tile::depth> walk_a(pieces.count * size, columns.taps, count, ShareA::k()), walk_b(pieces.count * size, columns.taps, count, ShareB::k());
  typename Tile::template Sums<Computed<T>> sums = {};
  Tile::template multiply<ShareA, ShareB>(count, sums, [&](ShareA& a, ShareB& b) {
    const Digits& k = walk_a.at;
    const std::int64_t pixel = std::int64_t((k.high * acts_grad.width + k.mid) * untied) * int(filters.pitch);
    const std::int64_t offset = pixel + offset_of(filters, 0, k.high * rows.tap_step, k.mid * columns.tap_step, k.low);
#pragma unroll
    for (int index = 0; index < ShareA::pieces; ++index)
      a.template load<Vector, true>(index, walk_a.left > 0, start[index] + offset, f.count - k.low);
    windows.fetch(b, walk_b.left > 0 && walk_b.at.low < f.count, walk_b.at);
    walk_a.advance();
    walk_b.advance();
  });

  images_grad.data += blockIdx.z * conv.part_size;
  const auto store = [&](const Epilogue<Target>& epilogue) {
    store_channels<T, Tile, Vector>(images_grad, g * C, first_channel, C - first_channel, first_piece, rows, columns, sums, epilogue);
  };
  // One way or the other: where each run of a tile of tile.cuh asks, ptxas tries to make room for a third block, and spills 8 bytes
  // (sm_86). With the tiles of mma_tile.cuh it is two ways that spill 8 bytes (sm_100).
  if (Tile::run_m == 1 || epilogue.acts) store(epilogue);
  else store({});
}

// Blocks: x = tile of channels of the group, then tile of columns, then which of every `stride` rows and columns of
// pixels; y = group; z = part of the filters.
//   images_grad[c,v,u,n] = sum over i,j,f of acts_grad[f,y,x,n] * filters[c - g C,i,j,f]
// Its two walks take too many registers for Tile::blocks: 24 bytes would be spilled (sm_90).
template <class T, class Tile, bool Vector, class Filter, class Target>
__global__ void __launch_bounds__(Tile::threads)
conv_backward_data_kernel(Images<const T> acts_grad, Images<const Filter> filters, Images<Target> images_grad, int column_tiles, Conv conv, Epilogue<Target> epilogue) {
  const int tiles = ceil_div(filters.channels, Tile::m), first_piece = int(blockIdx.x) / tiles % column_tiles * (Tile::n / piece<T>);
  const int phase = int(blockIdx.x) / tiles / column_tiles, phases = min(conv.stride, images_grad.width);
  const Window rows = backward_window(phase / phases, images_grad.height, filters.height, conv.stride, conv.padding);
  const Window columns = backward_window(phase % phases, images_grad.width, filters.width, conv.stride, conv.padding);
  if (first_piece >= rows.outputs * columns.outputs * pieces_of<T>(images_grad.images)) return;  // fewer pixels than phase 0

  backward_data_tile<T, Tile, Vector>(acts_grad, filters, images_grad, conv, 0, int(blockIdx.x) % tiles * Tile::m, first_piece, rows, columns,
                                      Epilogue<Target>{nullptr, false, epilogue.acts, epilogue.grad});
}

// A tile of filters_grad: filters from first_filter of the block's group on, rows (c,i,j) from first_row on, summed over
// these pixels of acts. It goes `skipped` rows further down, where each pixel has filters of its own: a pointer to them
// would be one register too many (sm_80). store(where it goes, values, how many of them are there) is what becomes of it.
template <class T, class Tile, bool Vector, class Store>
__device__ void backward_filters_tile(const Images<const T>& images, const Images<const T>& acts_grad, const Images<Computed<T>>& filters_grad,
                                      const Conv& conv, int first_filter, int first_row, int skipped, Range pixels, Store store) {
  const int F = filters_grad.images / conv.groups, g = int(blockIdx.y), rows = int(filters_grad.rows());
  const int N = images.images, padded = pieces_of<T>(N) * piece<T>;

  using ShareA = typename Tile::template ColumnShare<T, Tile::m>;
  using ShareB = typename Tile::template ColumnShare<T, Tile::n>;
  const T *start_a[ShareA::pieces], *start_b[ShareB::pieces];  // of the thread's columns, at the first pixel of acts
  int i[ShareB::pieces], j[ShareB::pieces];                    // less the padding
#pragma unroll
  for (int index = 0; index < ShareA::pieces; ++index)
    start_a[index] = acts_grad.data + offset_of(acts_grad, g * F + min(first_filter + ShareA::column(index), F - 1), 0, 0, 0);
#pragma unroll
  for (int index = 0; index < ShareB::pieces; ++index) {
    const int row = min(first_row + ShareB::column(index), rows - 1);
    const Digits tap = digits_of(row, filters_grad.width, filters_grad.height);
    i[index] = tap.mid - conv.padding;
    j[index] = tap.low - conv.padding;
    start_b[index] = images.data + offset_of(images, g * filters_grad.channels + tap.high, i[index], j[index], 0);
  }

  Walk<Tile::depth> walk(padded, acts_grad.width, (pixels.first + pixels.count) * padded, pixels.first * padded + ShareA::k());
  typename Tile::template Sums<Computed<T>> sums = {};
  Tile::template multiply<ShareA, ShareB>(pixels.count * padded, sums, [&](ShareA& a, ShareB& b) {
    const int n = walk.at.low, x = walk.at.mid, y = walk.at.high, first_v = y * conv.stride, first_u = x * conv.stride;
    const std::int64_t offset_a = offset_of(acts_grad, 0, y, x, n), offset_b = offset_of(images, 0, first_v, first_u, n);
#pragma unroll
    for (int index = 0; index < ShareA::pieces; ++index)
      a.template load<Vector, true>(index, walk.left > 0, start_a[index] + offset_a, N - n);
#pragma unroll
    for (int index = 0; index < ShareB::pieces; ++index) {
      const bool inside = unsigned(first_v + i[index]) < unsigned(images.height) && unsigned(first_u + j[index]) < unsigned(images.width);
      b.template load<Vector, true>(index, walk.left > 0 && inside, start_b[index] + offset_b, N - n);
    }
    walk.advance();
  });

  Computed<T>* const target = filters_grad.data + g * F;
#pragma unroll
  for (int j = 0; j < Tile::runs_n * Tile::run_n; ++j) {
    const int row = first_row + Tile::column(j / Tile::run_n) + j % Tile::run_n;
    // Else all addresses are computed first, and some are spilled (sm_80). No PTX, hence not in ptx/: it has no instruction
    // and is the same for every compiler.
    asm volatile("" ::: "memory");
#pragma unroll
    for (int i = 0; i < Tile::runs_m; ++i) {
      const int f = first_filter + Tile::row(i);
      Run<Computed<T>, Tile::run_m> values;
#pragma unroll
      for (int e = 0; e < Tile::run_m; ++e) values.at[e] = sums.at(i * Tile::run_m + e, j);
      if (row < rows && f < F) store(target + std::int64_t(skipped + row) * int(filters_grad.pitch) + f, values, F - f);
    }
  }
}

// The usual: overwrites the tile, or adds to it.
template <class T, class Tile, bool Vector>
__device__ void backward_filters_tile(const Images<const T>& images, const Images<const T>& acts_grad, const Images<Computed<T>>& filters_grad,
                                      const Conv& conv, int first_filter, int first_row, int skipped, Range pixels) {
  backward_filters_tile<T, Tile, Vector>(images, acts_grad, filters_grad, conv, first_filter, first_row, skipped, pixels,
                                         [&](Computed<T>* target, const Run<Computed<T>, Tile::run_m>& values, int count) { store_run<Vector>(target, values, count, filters_grad.add); });
}

// Blocks: x = tile of filters of the group, then tile of (channel, i, j); y = group; z = part of the pixels of acts.
//   filters_grad[c,i,j,f] = sum over y,x,n of images[g C + c, y stride - padding + i, x stride - padding + j, n] * acts_grad[f,y,x,n]
template <class T, class Tile, bool Vector>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
conv_backward_filters_kernel(Images<const T> images, Images<const T> acts_grad, Images<Computed<T>> filters_grad, Conv conv) {
  const int tiles = ceil_div(filters_grad.images / conv.groups, Tile::m);
  filters_grad.data += blockIdx.z * conv.part_size;
  backward_filters_tile<T, Tile, Vector>(images, acts_grad, filters_grad, conv, int(blockIdx.x) % tiles * Tile::m, int(blockIdx.x) / tiles * Tile::n,
                                         0, range_of(int(blockIdx.z), conv.parts, acts_grad.height * acts_grad.width));
}

}  // namespace convnet
