// Pixels to activities on the host.
#include <vector>
#include "../image.h"
#include "loops.h"

namespace convnet {

void image_forward(Stream stream, In pixels, In mean, In state, Out acts, bool random, std::uint32_t seed, std::uint32_t purpose, int first_image) {
  checks::image_forward(pixels, mean, state, acts);
  WITH_FLOAT_TYPE(acts, [&]<class T>(T) {
    const auto p = images_of<unsigned char>(pixels);
    const auto m = rows_of<T>(mean);
    const auto result = images_of<T>(acts);
    const int down = p.height - result.height, right = p.width - result.width;
    // by image: from pixel (c, y, 0) of image 0 to the one that act (c, y, 0) sees, and from there to the next
    std::vector<std::int64_t> start, step;
    if (random) {
      const auto now = std::uint64_t(rows_of<double>(state).row(0)[state_step]);
      for (int n = 0; n < p.images; ++n) {
        const auto [top, left, mirrored] = random_crop(first_image + n, now, seed, purpose, down, right);
        start.push_back(p.row(0, top, (mirrored ? result.width - 1 : 0) + left) - p.data + n);
        step.push_back(mirrored ? -p.pitch : p.pitch);
      }
    }
    parallel_for(stream, std::int64_t(result.channels) * result.height, [&](std::int64_t line, int) {
      const int c = int(line / result.height), y = int(line % result.height);
      const T* const means = m.row(line);
      for (int x = 0; x < result.width; ++x) {
        T* const target = result.row(c, y, x);
        if (random) {
          const unsigned char* const source = p.row(c, y, 0);
          store_row(target, result.images, result.add, [&](int n) { return T(source[start[n] + x * step[n]]) - means[x]; });
        } else {
          const unsigned char* const source = p.row(c, y + down / 2, x + right / 2);
          store_row(target, result.images, result.add, [&](int n) { return T(source[n]) - means[x]; });
        }
      }
    });
  });
}

}  // namespace convnet
