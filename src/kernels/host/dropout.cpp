// Dropout on the host: the words of four rows are drawn at once, along the images.
#include <algorithm>
#include "../dropout.h"
#include "loops.h"

namespace convnet {

void dropout(Stream stream, In inputs, In state, Out acts, double keep, double scale, std::uint32_t seed, std::uint32_t purpose, int first_image) {
  checks::dropout(inputs, state, acts, keep);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto x = rows_of<T>(inputs);
    const auto y = rows_of<T>(acts);
    const auto step = std::uint64_t(rows_of<double>(state).row(0)[state_step]);
    const std::uint64_t threshold = dropout_threshold(keep);
    // 32 bits for the compiler's vectors: word < threshold is word <= last, but for a keep of 0
    const auto last = std::uint32_t(threshold - (threshold > 0));
    const T factor = threshold > 0 ? T(scale) : T(0);
    for_row_ranges(stream, (y.rows + 3) / 4, 4 * y.pitch, [&](std::int64_t first, std::int64_t end) {
      for (std::int64_t group = first; group < end; ++group)
        for (int start = 0; start < y.images; start += 128) {
          const int images = std::min(128, y.images - start);
          std::uint32_t words[4][128];
          for (int n = 0; n < images; ++n) {
            const RandomWords random = random_words(std::uint32_t(group), std::uint32_t(first_image + start + n), step, seed, purpose);
            words[0][n] = random.word[0], words[1][n] = random.word[1], words[2][n] = random.word[2], words[3][n] = random.word[3];
          }
          for (int i = 0; i < 4 && group * 4 + i < y.rows; ++i) {
            const T* const row = x.row(group * 4 + i) + start;
            const std::uint32_t* const drawn = words[i];
            store_row(y.row(group * 4 + i) + start, images, y.add, [=](int n) {
              const T value = row[n] * factor;  // dropped or not, so that it is no branch
              return drawn[n] <= last ? value : T(0);
            });
          }
        }
    });
  });
}

}  // namespace convnet
