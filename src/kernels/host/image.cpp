// Pixels to activities on the host.
#include <vector>
#include "../image.h"
#include "loops.h"
#include "simd.h"

namespace convnet {
namespace {

using namespace simd;

// So many pixels of a line from the first one on, the last one first where they are mirrored.
template <class T>
ALWAYS_INLINE Vector<T> pixels_at(const unsigned char* pixels, bool mirrored) {
  typedef unsigned char Bytes __attribute__((vector_size(lanes<T>), aligned(1), may_alias));
  const Vector<T> values = __builtin_convertvector(*reinterpret_cast<const Bytes*>(pixels - (mirrored ? lanes<T> - 1 : 0)), Vector<T>);
  typename VectorOf<T>::index backwards;
  for (int k = 0; k < lanes<T>; ++k) backwards[k] = lanes<T> - 1 - k;
  return mirrored ? Vector<T>(__builtin_shuffle(values, backwards)) : values;
}

// value(pixel, mean, c, n) for every act, a number or a vector of images from n on. A line of an image lies side by side
// in the pixels, the images of a pixel in acts: squares of as many as there are lanes are turned in registers.
template <class T, class Value>
void for_crops(Stream stream, const In& pixels, const In& mean, const In& state, const Out& acts, const Cropping& cropping, Value value) {
  const auto p = images_of<unsigned char>(pixels);
  const auto m = rows_of<T>(mean);
  const auto result = images_of<T>(acts);
  const auto now = std::uint64_t(rows_of<double>(state).row(0)[state_step]);
  std::vector<Crop> crops;
  for (int n = 0; n < result.images; ++n) crops.push_back(cropping.crop(n, now));
  parallel_for(stream, std::int64_t(result.channels) * result.height, [&](std::int64_t line, int) {
    const int c = int(line / result.height), y = int(line % result.height), whole = result.width / lanes<T> * lanes<T>;
    const T* const means = m.row(line);
    const auto one_by_one = [&](int n, int first, int last) {
      const unsigned char* const row = p.row(n, c, y + crops[n].top);
      T* act = result.row(c, y, first) + n;
      for (int x = first; x < last; ++x, act += result.pitch) result.store(act, value(T(row[crops[n].column(x, result.width)]), means[x], c, n));
    };
    int n = 0;
    for (; n + lanes<T> <= result.images; n += lanes<T>) {
      for (int x = 0; x < whole; x += lanes<T>) {
        Vector<T> square[lanes<T>];
#pragma GCC unroll 16
        for (int i = 0; i < lanes<T>; ++i)
          square[i] = pixels_at<T>(p.row(n + i, c, y + crops[n + i].top) + crops[n + i].column(x, result.width), crops[n + i].mirrored);
        transpose<T>(square);
        T* act = result.row(c, y, x) + n;
#pragma GCC unroll 16
        for (int i = 0; i < lanes<T>; ++i, act += result.pitch) {
          const Vector<T> values = value(square[i], means[x + i], c, n);
          store(act, result.add ? load(act) + values : values);
        }
      }
      for (int i = 0; i < lanes<T>; ++i) one_by_one(n + i, whole, result.width);
    }
    for (; n < result.images; ++n) one_by_one(n, 0, result.width);
  });
}

}  // namespace

void image_forward(Stream stream, In pixels, In mean, In state, Out acts, bool random, int view, int images_per_crop, std::uint32_t seed,
                   std::uint32_t purpose, int first_image) {
  checks::image_forward(pixels, mean, state, acts, view, images_per_crop);
  const Cropping crops = cropping(pixels, acts, random, view, images_per_crop, seed, purpose, first_image);
  WITH_FLOAT_TYPE(acts, [&]<class T>(T) {
    for_crops<T>(stream, pixels, mean, state, acts, crops, [](auto pixel, T at_mean, int, int) { return pixel - at_mean; });
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
    for_crops<T>(stream, pixels, mean, state, acts, crops, [&, factor = T(scale)]<class V>(V pixel, T at_mean, int c, int n) {
      V noises;
      std::memcpy(&noises, &noise[std::size_t(c) * images + n], sizeof noises);
      return factor * (pixel - at_mean + noises);
    });
  });
}

}  // namespace convnet
