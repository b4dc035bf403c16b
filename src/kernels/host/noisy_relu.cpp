// Relu with noise on the host.
#include "../noisy_relu.h"
#include "loops.h"

namespace convnet {

void noisy_relu(Stream stream, In inputs, In state, Out acts, std::uint32_t seed, std::uint32_t purpose, int first_image) {
  checks::noisy_relu(inputs, state, acts);
  const auto step = std::uint64_t(rows_of<double>(state).row(0)[state_step]);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto x = rows_of<T>(inputs);
    const auto y = rows_of<T>(acts);
    for_row_ranges(stream, (y.rows + 3) / 4, 4 * y.pitch, [&](std::int64_t first, std::int64_t end) {
      for (std::int64_t group = first; group < end; ++group)
        for (int n = 0; n < y.images; ++n) {
          const RandomWords random = random_words(std::uint32_t(group), std::uint32_t(first_image + n), step, seed, purpose);
          for (int i = 0; i < 4 && group * 4 + i < y.rows; ++i)
            y.store(&y.row(group * 4 + i)[n], noisy_relu_value(x.row(group * 4 + i)[n], random_normal<T>(random, i)));
        }
    });
  });
}

}  // namespace convnet
