// Gaussian blur: launchers.
#include "blur.cuh"

namespace convnet {

void blur(Stream stream, In inputs, Out acts, int size, double stdev) {
  checks::blur(inputs, acts, size, stdev);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch<blur_kernel<T>>(rows_grid(acts.shape.rows(), acts.shape.images()), stream,
           images_of<T>(inputs), images_of<T>(acts), blur_weights<Computed<T>>(size, stdev));
  });
}

}  // namespace convnet
