// Bilinear resizing on the host.
#include "../resize.h"
#include "loops.h"

namespace convnet {
namespace {

// acts (+)= the image between four pixels, along the images.
template <class T>
void interpolate(const Images<const T>& inputs, const Images<T>& acts, int c, int y, int x, Neighbours down, Neighbours across) {
  const T *const above = inputs.row(c, down.first, across.first), *const above_right = inputs.row(c, down.first, across.second);
  const T *const below = inputs.row(c, down.second, across.first), *const below_right = inputs.row(c, down.second, across.second);
  store_row(acts.row(c, y, x), acts.images, acts.add, [&](int n) {
    return between(between(above[n], above_right[n], T(across.share)), between(below[n], below_right[n], T(across.share)), T(down.share));
  });
}

}  // namespace

void resize(Stream stream, In inputs, Out acts, double scale) {
  checks::resize(inputs, acts, scale);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = images_of<T>(inputs);
    const auto out = images_of<T>(acts);
    const Stretch down = stretch(scale, in.height, out.height), across = stretch(scale, in.width, out.width);
    for_pixels(stream, out, [&](int c, int y, int x) { interpolate(in, out, c, y, x, down.at(y), across.at(x)); });
  });
}

void random_scale_crop(Stream stream, In inputs, In state, Out acts, double max_scale, std::uint32_t seed, std::uint32_t purpose) {
  const int smallest = checks::random_scale_crop(inputs, state, acts, max_scale);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = images_of<T>(inputs);
    const auto out = images_of<T>(acts);
    const RandomScale drawn = draw_scale(in.height, out.height, smallest, std::uint64_t(rows_of<double>(state).row(0)[state_step]), seed, purpose);
    const Stretch stretched = stretch(drawn.scale, in.height, drawn.size);
    for_pixels(stream, out, [&](int c, int y, int x) {
      const int v = y + drawn.top, u = x + drawn.left;
      if (drawn.size == in.height) store_row(out.row(c, y, x), out.images, out.add, [input = in.row(c, v, u)](int n) { return input[n]; });
      else interpolate(in, out, c, y, x, stretched.at(v), stretched.at(u));
    });
  });
}

}  // namespace convnet
