// Pixels to activities on the host.
#include <vector>
#include "../image.h"
#include "loops.h"

namespace convnet {
namespace {

// value(pixel, mean, c, n) for every act. The centre's images are read in rows, those of any other crop one by one.
template <class T, class Value>
void for_crops(Stream stream, const In& pixels, const In& mean, const In& state, const Out& acts, const Cropping& cropping, Value value) {
  const auto p = images_of<unsigned char>(pixels);
  const auto m = rows_of<T>(mean);
  const auto result = images_of<T>(acts);
  const auto now = std::uint64_t(rows_of<double>(state).row(0)[state_step]);
  // by image: from pixel (c, y, 0) of image 0 to the one that act (c, y, 0) sees, and from there to the next
  std::vector<std::int64_t> start, step;
  for (int n = 0; n < p.images; ++n) {
    const auto [top, left, mirrored] = cropping.crop(n, now);
    start.push_back(p.row(0, top, (mirrored ? result.width - 1 : 0) + left) - p.data + n);
    step.push_back(mirrored ? -p.pitch : p.pitch);
  }
  parallel_for(stream, std::int64_t(result.channels) * result.height, [&](std::int64_t line, int) {
    const int c = int(line / result.height), y = int(line % result.height);
    const T* const means = m.row(line);
    for (int x = 0; x < result.width; ++x) {
      T* const target = result.row(c, y, x);
      const unsigned char* const source = p.row(c, y, 0);
      if (cropping.random) {
        store_row(target, result.images, result.add, [&](int n) { return value(T(source[start[n] + x * step[n]]), means[x], c, n); });
      } else {  // all images alike
        const unsigned char* const row = source + start[0] + x * step[0];
        store_row(target, result.images, result.add, [&](int n) { return value(T(row[n]), means[x], c, n); });
      }
    }
  });
}

}  // namespace

void image_forward(Stream stream, In pixels, In mean, In state, Out acts, bool random, int view, int images_per_crop, std::uint32_t seed,
                   std::uint32_t purpose, int first_image) {
  checks::image_forward(pixels, mean, state, acts, view, images_per_crop);
  const Cropping crops = cropping(pixels, acts, random, view, images_per_crop, seed, purpose, first_image);
  WITH_FLOAT_TYPE(acts, [&]<class T>(T) {
    for_crops<T>(stream, pixels, mean, state, acts, crops, [](T pixel, T at_mean, int, int) { return pixel - at_mean; });
  });
}

void noisy_image_forward(Stream stream, In pixels, In mean, In colors, In state, Out acts, double scale, int images_per_crop, std::uint32_t seed,
                         std::uint32_t purpose, int first_image) {
  checks::noisy_image_forward(pixels, mean, colors, state, acts, images_per_crop);
  const Cropping crops = cropping(pixels, acts, true, 0, images_per_crop, seed, purpose, first_image);
  WITH_FLOAT_TYPE(acts, [&]<class T>(T) {
    const auto by = rows_of<T>(colors);
    const int images = int(acts.shape.images());
    const auto step = std::uint64_t(rows_of<double>(state).row(0)[state_step]);
    std::vector<T> noise;  // (channels, images)
    for (int c = 0; c < by.rows; ++c)
      for (int n = 0; n < images; ++n) noise.push_back(noise_of(by.row(c), by.images, crops.noise_words(n, step)));
    for_crops<T>(stream, pixels, mean, state, acts, crops, [&, factor = T(scale)](T pixel, T at_mean, int c, int n) {
      return factor * (pixel - at_mean + noise[std::size_t(c) * images + n]);
    });
  });
}

}  // namespace convnet
