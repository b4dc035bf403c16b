// Pixels to activities on the host.
#include <vector>
#include "../image.h"
#include "tiles.h"

namespace convnet {
namespace {

// value(pixel, mean, noise) for every act; noise: (channels, images). A line of an image lies side by side in the pixels, the
// images of a pixel in acts: of as many images as there are lanes, the acts of a line are made first, and then turned in
// registers, square by square.
template <class T, class Value>
void for_crops(Stream stream, const In& pixels, const In& mean, const In& state, const Out& acts, const Cropping& cropping,
               const std::vector<T>& noise, Value value) {
  using namespace simd;
  const auto p = images_of<unsigned char>(pixels);
  const auto m = rows_of<T>(mean);
  const auto result = images_of<T>(acts);
  const auto now = std::uint64_t(rows_of<double>(state).row(0)[state_step]);
  const bool streams = should_stream<T>(acts);
  const int width = result.width, whole = whole_vectors<T>(width);
  std::vector<Crop> crops;
  for (int n = 0; n < result.images; ++n) crops.push_back(cropping.crop(n, now));
  parallel_for(stream, std::int64_t(result.channels) * result.height, [&](std::int64_t row, int) {
    const int c = int(row / result.height), y = int(row % result.height);
    std::vector<T> lines(std::size_t(std::min(lanes<T>, result.images)) * whole);
    const auto make_line = [&](int n, T* line) {
      const unsigned char* const seen = p.row(n, c, y + crops[n].top) + crops[n].left;
      const T* const means = m.row(row);
      const T noise_here = noise[std::size_t(c) * result.images + n];
      if (crops[n].mirrored)
        for (int x = 0; x < width; ++x) line[x] = value(T(seen[width - 1 - x]), means[x], noise_here);
      else
        for (int x = 0; x < width; ++x) line[x] = value(T(seen[x]), means[x], noise_here);
    };
    int n = 0;
    for (; n + lanes<T> <= result.images; n += lanes<T>) {
      for (int i = 0; i < lanes<T>; ++i) make_line(n + i, &lines[std::size_t(i) * whole]);
      for (int x = 0; x < width; x += lanes<T>) {
        Vector<T> square[lanes<T>];
#pragma GCC unroll 16
        for (int i = 0; i < lanes<T>; ++i) square[i] = load(&lines[std::size_t(i) * whole + x]);
        transpose<T>(square);
        T* act = result.row(c, y, x) + n;
#pragma GCC unroll 16
        for (int i = 0; i < lanes<T>; ++i, act += result.pitch) {
          if (x + i >= width) break;
          if (streams) stream_store(act, square[i]);
          else store(act, result.add ? load(act) + square[i] : square[i]);
        }
      }
    }
    for (; n < result.images; ++n) {
      make_line(n, lines.data());
      T* act = result.row(c, y, 0) + n;
      if (result.pitch == 1 && !result.add) std::copy_n(lines.data(), width, act);
      else for (int x = 0; x < width; ++x, act += result.pitch) result.store(act, lines[x]);
    }
    if (streams) stream_fence();
  });
}

}  // namespace

void image_forward(Stream stream, In pixels, In mean, In state, Out acts, bool random, int view, int images_per_crop, std::uint32_t seed,
                   std::uint32_t purpose, int first_image) {
  checks::image_forward(pixels, mean, state, acts, view, images_per_crop);
  const Cropping crops = cropping(pixels, acts, random, view, images_per_crop, seed, purpose, first_image);
  WITH_FLOAT_TYPE(acts, [&]<class T>(T) {
    const std::vector<T> no_noise(std::size_t(acts.shape[0] * acts.shape[3]));
    for_crops<T>(stream, pixels, mean, state, acts, crops, no_noise, [](T pixel, T at_mean, T) { return pixel - at_mean; });
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
    for_crops<T>(stream, pixels, mean, state, acts, crops, noise,
                 [factor = T(scale)](T pixel, T at_mean, T at_channel) { return factor * (pixel - at_mean + at_channel); });
  });
}

}  // namespace convnet
