// Pixels to activities: launchers.
#include "image.cuh"
#include "ops.h"

namespace convnet {

void image_forward(Stream stream, In pixels, In mean, In state, Out acts, bool random, std::uint32_t seed, std::uint32_t purpose) {
  CHECK_RANK(pixels, 4);
  CHECK_DTYPE(pixels, Dtype::uint8);
  CHECK_RANK(acts, 4);
  CHECK(pixels.shape[0] == acts.shape[0] && pixels.shape[3] == acts.shape[3]);
  CHECK(pixels.shape[1] >= acts.shape[1] && pixels.shape[2] >= acts.shape[2]);
  CHECK_SHAPE(mean, (Shape{3, {acts.shape[0], acts.shape[1], acts.shape[2]}}));
  CHECK_DTYPE(mean, acts.dtype);
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(state.shape[0] > state_step);
  WITH_FLOAT_TYPE(acts, [&]<class T>(T) {
    launch(image_forward_kernel<T>, rows_grid(acts.shape[0] * acts.shape[1], int(acts.shape.images())), stream,
           images_of<unsigned char>(pixels), rows_of<T>(mean), rows_of<double>(state), images_of<T>(acts), random, seed, purpose);
  });
}

}  // namespace convnet
