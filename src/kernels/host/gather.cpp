// Chosen channels on the host: copies and sums of rows.
#include <cmath>
#include <vector>
#include "../gather.h"
#include "loops.h"

namespace convnet {

void gather_forward(Stream stream, In inputs, In channels, Out acts) {
  checks::gather(__func__, inputs, channels, acts);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = images_of<T>(inputs);
    const auto out = images_of<T>(acts);
    const T* const chosen = static_cast<const T*>(channels.ptr);
    const std::int64_t pixels = std::int64_t(out.height) * out.width;
    for_row_ranges(stream, out.rows(), out.pitch, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r) {
        const T channel = chosen[r / pixels];
        T* const target = out.data + r * out.pitch;
        if (is_channel(channel, in.channels))
          store_row(target, out.images, out.add, [row = in.row(int(channel), 0, 0) + r % pixels * in.pitch](int n) { return row[n]; });
        else
          store_row(target, out.images, out.add, [](int) { return T(NAN); });
      }
    });
  });
}

void gather_backward(Stream stream, In acts_grad, In channels, Out inputs_grad) {
  checks::gather(__func__, inputs_grad, channels, acts_grad);
  WITH_FLOAT_TYPE(acts_grad, [&]<class T>(T) {
    const auto grads = images_of<T>(acts_grad);
    const auto out = images_of<T>(inputs_grad);
    const T* const chosen = static_cast<const T*>(channels.ptr);
    std::vector<std::vector<int>> readers(out.channels);  // of each channel of inputs, in order
    for (int c = 0; c < grads.channels; ++c)
      if (is_channel(chosen[c], out.channels)) readers[int(chosen[c])].push_back(c);
    const std::int64_t pixels = std::int64_t(out.height) * out.width;
    constexpr int tile = 128;  // images that are summed together
    for_row_ranges(stream, out.rows(), out.pitch, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r)
        for (int n0 = 0; n0 < out.images; n0 += tile) {
          const int count = std::min(tile, out.images - n0);
          T sum[tile] = {};
          for (int c : readers[r / pixels]) {
            const T* const row = grads.row(c, 0, 0) + r % pixels * grads.pitch + n0;
            for (int n = 0; n < count; ++n) sum[n] += row[n];
          }
          store_row(out.data + r * out.pitch + n0, count, out.add, [&](int n) { return sum[n]; });
        }
    });
  });
}

}  // namespace convnet
