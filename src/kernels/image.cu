// Pixels to activities: launchers.
#include "image.cuh"

namespace convnet {

void image_forward(Stream stream, In pixels, In mean, In state, Out acts, bool random, std::uint32_t seed, std::uint32_t purpose, int first_image) {
  checks::image_forward(pixels, mean, state, acts);
  WITH_FLOAT_TYPE(acts, [&]<class T>(T) {
    launch(image_forward_kernel<T>, rows_grid(acts.shape[0] * acts.shape[1], int(acts.shape.images())), stream,
           images_of<unsigned char>(pixels), rows_of<T>(mean), rows_of<double>(state), images_of<T>(acts), random, seed, purpose, first_image);
  });
}

}  // namespace convnet
