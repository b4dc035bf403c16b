// Bilinear resizing: launchers.
#include "resize.cuh"

namespace convnet {

void resize(Stream stream, In inputs, Out acts, double scale) {
  checks::resize(inputs, acts, scale);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = images_of<T>(inputs);
    const auto out = images_of<T>(acts);
    launch<resize_kernel<T>>(rows_grid(acts.shape.rows(), acts.shape.images()), stream,
           in, out, stretch(scale, in.height, out.height), stretch(scale, in.width, out.width));
  });
}

void random_scale_crop(Stream stream, In inputs, In state, Out acts, double max_scale, std::uint32_t seed, std::uint32_t purpose) {
  const int smallest = checks::random_scale_crop(inputs, state, acts, max_scale);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    launch<random_scale_crop_kernel<T>>(rows_grid(acts.shape[0] * acts.shape[1], acts.shape.images()), stream,
           images_of<T>(inputs), rows_of<double>(state), images_of<T>(acts), smallest, seed, purpose);
  });
}

}  // namespace convnet
