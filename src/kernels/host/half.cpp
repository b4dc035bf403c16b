// Half precision on the host.
#include "../half.h"
#include "loops.h"

namespace convnet {

void to_half(Stream stream, In values, Out halves) {
  checks::to_half(values, halves);
  WITH_FLOAT_TYPE(values, [&]<class T>(T) {
    const auto in = rows_of<T>(values);
    const auto out = rows_of<std::uint16_t>(halves);
    for_row_ranges(stream, out.rows, out.pitch, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r)
        for (int n = 0; n < out.images; ++n) out.row(r)[n] = half_bits(float(in.row(r)[n]));
    });
  });
}

void from_half(Stream stream, In halves, Out values) {
  checks::from_half(halves, values);
  WITH_FLOAT_TYPE(values, [&]<class T>(T) {
    const auto in = rows_of<std::uint16_t>(halves);
    const auto out = rows_of<T>(values);
    for_row_ranges(stream, out.rows, out.pitch, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r)
        store_row(out.row(r), out.images, out.add, [row = in.row(r)](int n) { return T(half_value(row[n])); });
    });
  });
}

}  // namespace convnet
