// Colour spaces: launchers.
#include "color.cuh"

namespace convnet {

void rgb_to_yuv(Stream stream, In inputs, Out acts) {
  checks::rgb_to_yuv(inputs, acts);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    launch<rgb_to_yuv_kernel<T>>(rows_grid(acts.shape.rows() / 3, acts.shape.images()), stream,
           images_of<T>(inputs), images_of<T>(acts));
  });
}

void rgb_to_lab(Stream stream, In inputs, Out acts, bool center) {
  checks::rgb_to_lab(inputs, acts);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    launch<rgb_to_lab_kernel<T>>(rows_grid(acts.shape.rows() / 3, acts.shape.images()), stream,
           images_of<T>(inputs), images_of<T>(acts), center);
  });
}

}  // namespace convnet
