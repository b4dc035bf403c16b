// Half precision: launchers.
#include "half.cuh"

namespace convnet {

void to_half(Stream stream, In values, Out halves) {
  checks::to_half(values, halves);
  WITH_FLOAT_TYPE(values, [&]<class T>(T) {
    launch<to_half_kernel<T>>(rows_grid(halves.shape.rows(), int(halves.shape.images())), stream, rows_of<T>(values), rows_of<std::uint16_t>(halves));
  });
}

void from_half(Stream stream, In halves, Out values) {
  checks::from_half(halves, values);
  WITH_FLOAT_TYPE(values, [&]<class T>(T) {
    launch<from_half_kernel<T>>(rows_grid(values.shape.rows(), int(values.shape.images())), stream, rows_of<std::uint16_t>(halves), rows_of<T>(values));
  });
}

}  // namespace convnet
