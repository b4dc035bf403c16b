// Pixels to activities on the host.
#include <vector>
#include "../ops.h"
#include "../philox.h"
#include "loops.h"

namespace convnet {

void image_forward(Stream stream, In pixels, In mean, In state, Out acts, bool random, std::uint32_t seed, std::uint32_t purpose) {
  CHECK_RANK(pixels, 4);
  CHECK_DTYPE(pixels, Dtype::uint8);
  CHECK_RANK(acts, 4);
  CHECK(pixels.shape[0] == acts.shape[0] && pixels.shape[3] == acts.shape[3]);
  CHECK(pixels.shape[1] >= acts.shape[1] && pixels.shape[2] >= acts.shape[2]);
  CHECK_SHAPE(mean, (Shape{3, {acts.shape[0], acts.shape[1], acts.shape[2]}}));
  CHECK_DTYPE(mean, acts.dtype);
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(state.shape[0] > state_step);
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
        const RandomWords words = random_words(0, std::uint32_t(n), now, seed, purpose);
        const int top = random_below(words.word[0], down + 1), left = random_below(words.word[1], right + 1);
        const bool mirrored = words.word[2] & 1;
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
