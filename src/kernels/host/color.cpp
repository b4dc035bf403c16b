// Colour spaces on the host.
#include "../color.h"
#include "loops.h"

namespace convnet {
namespace {

// acts (+)= f(red, green, blue), pixel by pixel.
template <class T, class F>
void for_colors(Stream stream, const Images<const T>& inputs, const Images<T>& acts, F f) {
  const std::int64_t pixels = acts.rows() / 3;
  for_row_ranges(stream, pixels, 3 * acts.pitch, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t pixel = first; pixel < last; ++pixel) {
      const T* const red = inputs.data + pixel * inputs.pitch;
      const T *const green = red + pixels * inputs.pitch, *const blue = green + pixels * inputs.pitch;
      T* const row = acts.data + pixel * acts.pitch;
      for (int n = 0; n < acts.images; ++n) {
        const Color<T> color = f(red[n], green[n], blue[n]);
        for (int c = 0; c < 3; ++c) acts.store(row + c * pixels * acts.pitch + n, color.channel[c]);
      }
    }
  });
}

}  // namespace

void rgb_to_yuv(Stream stream, In inputs, Out acts) {
  checks::rgb_to_yuv(inputs, acts);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    for_colors(stream, images_of<T>(inputs), images_of<T>(acts), [](T r, T g, T b) { return yuv_of(r, g, b); });
  });
}

void rgb_to_lab(Stream stream, In inputs, Out acts, bool center) {
  checks::rgb_to_lab(inputs, acts);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    for_colors(stream, images_of<T>(inputs), images_of<T>(acts), [center](T r, T g, T b) { return lab_of(r, g, b, center); });
  });
}

}  // namespace convnet
