// Pixels to activities: launchers.
#include "image.cuh"

namespace convnet {
namespace {

Grid grid_of(const Out& acts) {
  return {dim3(unsigned(acts.shape[0] * acts.shape[1]), unsigned(ceil_div<std::int64_t>(acts.shape.images(), image_tile))), dim3(image_tile, rows_threads / image_tile)};
}

}  // namespace

void image_forward(Stream stream, In pixels, In mean, In state, Out acts, bool random, int view, int images_per_crop, std::uint32_t seed,
                   std::uint32_t purpose, int first_image) {
  checks::image_forward(pixels, mean, state, acts, view, images_per_crop);
  WITH_STORED_TYPE(acts, [&]<class T>(T) {
    launch<image_forward_kernel<T, false>>(grid_of(acts), stream,
           images_of<unsigned char>(pixels), rows_of<Computed<T>>(mean), Rows<const Computed<T>>{}, rows_of<double>(state), images_of<T>(acts), Computed<T>(1),
           cropping(pixels, acts, random, view, images_per_crop, seed, purpose, first_image));
  });
}

void noisy_image_forward(Stream stream, In pixels, In mean, In colors, In state, Out acts, double scale, int images_per_crop, std::uint32_t seed,
                         std::uint32_t purpose, int first_image) {
  checks::noisy_image_forward(pixels, mean, colors, state, acts, images_per_crop);
  WITH_STORED_TYPE(acts, [&]<class T>(T) {
    launch<image_forward_kernel<T, true>>(grid_of(acts), stream,
           images_of<unsigned char>(pixels), rows_of<Computed<T>>(mean), rows_of<Computed<T>>(colors), rows_of<double>(state), images_of<T>(acts), Computed<T>(scale),
           cropping(pixels, acts, true, 0, images_per_crop, seed, purpose, first_image));
  });
}

}  // namespace convnet
