// Every op of the library. One signature, implemented once per backend.
//
// Order of arguments: stream, what is read, what is written, scalars. Activities are (channels, height,
// width, images), images fastest; an `Out` with `add` set has the result added to what it holds, else it
// is overwritten. Every tensor of a call has the same floating type (float32 or float64) unless it says
// otherwise; on cuda and simt, images, inputs and acts, and their gradients, may be bfloat16 in many ops, and all else
// float32: computing is done in float32, and what is stored is rounded to nearest, once. `_grad` is the derivative of
// the cost, summed over the images of the minibatch.
// Beside an op stand its output's shape, and the bytes of scratch memory it needs, where it needs any:
// `workspace` is uint8, 64-byte aligned, and what it holds before and after means nothing.
#pragma once
#include "tensor.h"

namespace convnet {

// ---- convolution ---------------------------------------------------------------------------------

// How much rounding a convolution or a fully connected layer may spend on speed.
//   exact  sums of the products as the formula has them
//   fast   also what multiplies less: on host, Winograd's F(9 - r, r) along the rows, where the stride is 1, filters are r = 3
//          to 5 pixels wide, there are 16 or more images, a group has 16 or more channels and 16 or more filters, and rows are wide enough for a tile (host/conv_winograd.h).
//          All else is exact, as are the other backends. With u = 2^-24 (float32), each result is within
//          (8 (D + 21)^1/2 + 8) u S of the exact one; D are the products down a column of the filter and over the channels, S is the
//          algorithm's own sum with all its numbers, those of the transforms too, taken absolutely. Measured, the error
//          is about 3 times that of exact, and 5 times in backward_filters, where both are smaller.
//   bf16x3, tf32, bf16
//          float32 operands are rounded for tensor cores, and summed in float32: to the sum of two bfloat16, to tf32 or to
//          bfloat16. On cuda and simt, from sm_80 on, where m > 32 and n > 64 (conv_launch.cuh) or a table has it so (tiles.h); all
//          else is exact, as is host.
//          Each result is within (8 D^1/2 + 8) u S + e S of the exact one; D and S are the number of products and the sum of
//          their absolute values, e = 2^-14.4, 2^-9.99 and 2^-6.99. bf16x3 makes NaN of infinite operands. On simt the root
//          mean square of the error of conv2 to conv5 of AlexNet, by S, is 2e-7, 1e-5 and 1e-4 (exact: 1e-8).
//          Activities may be bfloat16 at bf16, where they are multiplied as they are, and at exact, where float32 filters
//          are not rounded; beside them filters may be bfloat16 too, and weights, biases and the gradients of all these are float32.
enum class Precision : std::uint8_t { exact, fast, bf16x3, tf32, bf16 };

// Output of a convolution: (filters, 1 + ceil((2 padding + height - filter height) / stride), ..., images);
// the last windows may hang over the edge, where the image is zero.
Shape conv_shape(Shape images, Shape filters, int stride, int padding);

// Convolution (cross-correlation), `groups` independent ones side by side.
//   acts[f,y,x,n] = sum over c,i,j of images[g C + c, y stride - padding + i, x stride - padding + j, n]
//                                     * filters[c,i,j,f]
// with C = channels / groups and g the group of filter f; zero outside the image.
// filters: (channels / groups, filter height, filter width, filters of all groups).
// Source: Krizhevsky et al. 2012, section 3; the ceil in the output's size is cuda-convnet's.
void conv_forward(Stream, In images, In filters, Out acts, Out workspace, int stride, int padding, int groups, Precision precision);
std::int64_t conv_forward_workspace(Stream, In images, In filters, Out acts, int stride, int padding, int groups, Precision precision);

// conv_forward, bias_forward and, with `relu`, neuron_forward of a relu in one, to the bit:
//   acts = max(0, sum of conv_forward + biases[f])       with `add`: max(0, (acts + sum) + biases[f])
// biases: (filters of all groups,).
void conv_bias_forward(Stream, In images, In filters, In biases, Out acts, Out workspace, int stride, int padding, int groups, Precision precision, bool relu);
std::int64_t conv_bias_forward_workspace(Stream, In images, In filters, In biases, Out acts, int stride, int padding, int groups, Precision precision, bool relu);

// Gradient of conv_forward by its images.
//   images_grad[c,v,u,n] = sum over f of c's group and i,j of acts_grad[f,y,x,n] * filters[c - g C,i,j,f]
// where v = y stride - padding + i and u = x stride - padding + j.
void conv_backward_data(Stream, In acts_grad, In filters, Out images_grad, Out workspace, int stride, int padding, int groups, Precision precision);
std::int64_t conv_backward_data_workspace(Stream, In acts_grad, In filters, Out images_grad, int stride, int padding, int groups, Precision precision);

// conv_backward_data and, of a relu whose acts are the images, neuron_backward in one, to the bit:
//   images_grad = (sum of conv_backward_data) * (images > 0)       with `add`: (images_grad + sum) * (images > 0)
// The rows of images are as far apart as those of images_grad.
void conv_relu_backward_data(Stream, In acts_grad, In filters, In images, Out images_grad, Out workspace, int stride, int padding, int groups, Precision precision);
std::int64_t conv_relu_backward_data_workspace(Stream, In acts_grad, In filters, In images, Out images_grad, int stride, int padding, int groups, Precision precision);

// Gradient of conv_forward by its filters.
//   filters_grad[c,i,j,f] = sum over y,x,n of images[g C + c, y stride - padding + i, x stride - padding + j, n]
//                                             * acts_grad[f,y,x,n]
void conv_backward_filters(Stream, In images, In acts_grad, Out filters_grad, Out workspace, int stride, int padding, int groups, Precision precision);
std::int64_t conv_backward_filters_workspace(Stream, In images, In acts_grad, Out filters_grad, int stride, int padding, int groups, Precision precision);

// ---- locally connected -----------------------------------------------------------------------------

// Convolution whose filters are not shared: each pixel of acts has its own.
//   acts[f,y,x,n] = sum over c,i,j of images[g C + c, y stride - padding + i, x stride - padding + j, n]
//                                     * weights[p,c,i,j,f]
// with p = y * (width of acts) + x; the letters and acts' shape are those of conv_forward.
// weights: (pixels of acts, channels / groups, filter height, filter width, filters of all groups).
void local_forward(Stream, In images, In weights, Out acts, Out workspace, int stride, int padding, int groups);
std::int64_t local_forward_workspace(Stream, In images, In weights, Out acts, int stride, int padding, int groups);

// Gradient of local_forward by its images.
//   images_grad[c,v,u,n] = sum over f of c's group and i,j of acts_grad[f,y,x,n] * weights[p,c - g C,i,j,f]
// where v = y stride - padding + i and u = x stride - padding + j.
void local_backward_data(Stream, In acts_grad, In weights, Out images_grad, Out workspace, int stride, int padding, int groups);
std::int64_t local_backward_data_workspace(Stream, In acts_grad, In weights, Out images_grad, int stride, int padding, int groups);

// Gradient of local_forward by its weights.
//   weights_grad[p,c,i,j,f] = sum over n of images[g C + c, y stride - padding + i, x stride - padding + j, n]
//                                           * acts_grad[f,y,x,n]
void local_backward_weights(Stream, In images, In acts_grad, Out weights_grad, Out workspace, int stride, int padding, int groups);
std::int64_t local_backward_weights_workspace(Stream, In images, In acts_grad, Out weights_grad, int stride, int padding, int groups);

// ---- chosen channels ----------------------------------------------------------------------------------

// Channels in any order, each any number of times: what the groups of a sparse convolution read.
//   acts[c,y,x,n] = inputs[channels[c],y,x,n]
// channels: (channels of acts,), whole numbers from 0; one that inputs do not have gives NaN.
void gather_forward(Stream, In inputs, In channels, Out acts);

// Gradient of gather_forward.
//   inputs_grad[k,y,x,n] = sum of acts_grad[c,y,x,n] over the c, in order, with channels[c] = k
void gather_backward(Stream, In acts_grad, In channels, Out inputs_grad);

// ---- fully connected -------------------------------------------------------------------------------

// Fully connected layer; inputs and acts may have any rank, all dimensions but the images are one.
//   acts[o,n] = sum over i of inputs[i,n] * weights[i,o]
// weights: (inputs, outputs).
void fc_forward(Stream, In inputs, In weights, Out acts, Out workspace, Precision precision);
std::int64_t fc_forward_workspace(Stream, In inputs, In weights, Out acts, Precision precision);

// fc_forward, bias_forward and, with `relu`, neuron_forward of a relu in one: see conv_bias_forward.
// biases: (outputs,).
void fc_bias_forward(Stream, In inputs, In weights, In biases, Out acts, Out workspace, Precision precision, bool relu);
std::int64_t fc_bias_forward_workspace(Stream, In inputs, In weights, In biases, Out acts, Precision precision, bool relu);

// Gradient of fc_forward by its inputs.
//   inputs_grad[i,n] = sum over o of weights[i,o] * acts_grad[o,n]
void fc_backward_data(Stream, In acts_grad, In weights, Out inputs_grad, Out workspace, Precision precision);
std::int64_t fc_backward_data_workspace(Stream, In acts_grad, In weights, Out inputs_grad, Precision precision);

// fc_backward_data and, of a relu whose acts are the inputs, neuron_backward in one: see conv_relu_backward_data.
void fc_relu_backward_data(Stream, In acts_grad, In weights, In inputs, Out inputs_grad, Out workspace, Precision precision);
std::int64_t fc_relu_backward_data_workspace(Stream, In acts_grad, In weights, In inputs, Out inputs_grad, Precision precision);

// Gradient of fc_forward by its weights.
//   weights_grad[i,o] = sum over n of inputs[i,n] * acts_grad[o,n]
void fc_backward_weights(Stream, In inputs, In acts_grad, Out weights_grad, Out workspace, Precision precision);
std::int64_t fc_backward_weights_workspace(Stream, In inputs, In acts_grad, Out weights_grad, Precision precision);

// fc_backward_weights and, with the gradient that it overwrites, sgd_update in one, to the bit: the gradient is not kept.
void fc_backward_update(Stream, In inputs, In acts_grad, In state, Out increments, Out weights, Out workspace, Precision precision, int rate_slot, double momentum, double decay, int images);
std::int64_t fc_backward_update_workspace(Stream, In inputs, In acts_grad, In state, Out increments, Out weights, Precision precision, int rate_slot, double momentum, double decay, int images);

// ---- biases ----------------------------------------------------------------------------------------

// Biases, spread over the images.
//   acts[c,y,x,n] = biases[c]          biases: (channels,), shared by the pixels of a map
//   acts[c,y,x,n] = biases[c,y,x]      biases: (channels * height * width,), unshared
void bias_forward(Stream, In biases, Out acts);

// Gradient of bias_forward: the sum of acts_grad over the images, and over the pixels where they share.
void bias_backward(Stream, In acts_grad, Out biases_grad, Out workspace);
std::int64_t bias_backward_workspace(Stream, In acts_grad, Out biases_grad);

// ---- pooling ---------------------------------------------------------------------------------------

// Output of a pooling: ceil((height - start - size) / stride) + 1 windows down, likewise across.
Shape pool_shape(Shape inputs, int size, int stride, int start);

// Max-pooling over overlapping windows: output (y,x) sees the pixels from start + y stride to + size,
// clipped to the image; how many outputs there are is acts' shape.
//   acts[c,y,x,n] = max over the window of inputs[c,.,.,n]
void max_pool_forward(Stream, In inputs, Out acts, int size, int stride, int start);

// Gradient of max_pool_forward. Every input equal to its window's maximum gets the window's full
// gradient, ties included, as in cuda-convnet. relu: the inputs are the acts of one, and inputs_grad is what neuron_backward
// makes of it, to the bit.
void max_pool_backward(Stream, In inputs, In acts, In acts_grad, Out inputs_grad, int size, int stride, int start, bool relu);

// Pooling of magnitudes over the same windows: what is farthest from 0, with its sign; of equally far ones the last of
// the window. Its gradient is max_pool_backward.
void maxabs_pool_forward(Stream, In inputs, Out acts, int size, int stride, int start);

// Average-pooling over the same windows; the sum is divided by the area of the clipped window, unless `sum`.
void avg_pool_forward(Stream, In inputs, Out acts, int size, int stride, int start, bool sum);

// Gradient of avg_pool_forward.
void avg_pool_backward(Stream, In acts_grad, Out inputs_grad, int size, int stride, int start, bool sum);

// avg_pool_backward and, of a relu whose acts are the inputs, neuron_backward in one, to the bit.
void avg_pool_relu_backward(Stream, In acts_grad, In inputs, Out inputs_grad, int size, int stride, int start, bool sum);

// Stochastic pooling (Zeiler and Fergus 2013) over the same windows: one of the inputs above 0, each as likely as it is
// large; 0 where there is none. In the order of the window it is the first at which the sum of the inputs above 0
// so far is more than u times that of the whole window. u: the upper 24 bits of word e % 4 of Philox4x32-10, over 2^24,
// with the key (seed, purpose) and the counter (e / 4, first_image + n, step low, step high); e = (c height + y) width + x of acts.
void random_pool_forward(Stream, In inputs, In state, Out acts, int size, int stride, int start, std::uint32_t seed, std::uint32_t purpose, int first_image);

// Gradient of random_pool_forward: to the inputs that it took, which are drawn again; nothing is stored.
void random_pool_backward(Stream, In inputs, In state, In acts_grad, Out inputs_grad, int size, int stride, int start, std::uint32_t seed, std::uint32_t purpose, int first_image);

// The mean of what random_pool_forward draws, for when the net is tested: with a the inputs above 0 of the window,
//   acts = (sum of a^2) / (sum of a), or 0 where there is none
void expected_pool_forward(Stream, In inputs, Out acts, int size, int stride, int start);

// Gradient of expected_pool_forward.
//   inputs_grad = sum over the windows that hold it of acts_grad * (2 inputs - acts) / (sum of a), where inputs > 0
void expected_pool_backward(Stream, In inputs, In acts, In acts_grad, Out inputs_grad, int size, int stride, int start);

// Max-pooling over overlapping windows of channels: output o sees those from start + o stride to + size, clipped.
//   acts[o,y,x,n] = max over the window of inputs[.,y,x,n]
void cross_map_max_pool_forward(Stream, In inputs, Out acts, int size, int stride, int start);

// Gradient of cross_map_max_pool_forward; ties as in max_pool_backward.
void cross_map_max_pool_backward(Stream, In inputs, In acts, In acts_grad, Out inputs_grad, int size, int stride, int start);

// ---- normalization -----------------------------------------------------------------------------------

// Cross-map response normalization (Krizhevsky et al. 2012, section 3.3).
//   denoms[c] = bias + scale * (sum of inputs[j]^2 over the channels j from c - size / 2 to + size, clipped)
//   acts[c]   = inputs[c] * denoms[c]^-power
// blocked: the window of c is the block of `size` channels that c is in, from c / size * size on.
void lrn_forward(Stream, In inputs, Out denoms, Out acts, int size, double scale, double power, double bias, bool blocked);

// Gradient of lrn_forward.
//   inputs_grad[c] = acts_grad[c] * denoms[c]^-power
//                    - 2 scale power inputs[c] * (sum of acts_grad[j] * inputs[j] * denoms[j]^(-power - 1)
//                                                 over the channels j whose window holds c)
// relu: as in max_pool_backward.
void lrn_backward(Stream, In inputs, In denoms, In acts_grad, Out inputs_grad, int size, double scale, double power, bool blocked, bool relu);

// Max-pooling over normalized maps, of which nothing else is stored: to the bit the acts of
//   max_pool_forward(lrn_forward(inputs, size, scale, power, bias), pool_size, stride, start)
void lrn_max_pool_forward(Stream, In inputs, Out acts, int size, double scale, double power, double bias, int pool_size, int stride, int start);

// Gradient of lrn_max_pool_forward, to the bit that of lrn_backward after max_pool_backward: what they read is computed again.
// In bfloat16 the same inputs are maxima, those whose normalized values are rounded to acts; but the gradient that would
// lie between the two ops is not rounded. relu: as in max_pool_backward.
void lrn_max_pool_backward(Stream, In inputs, In acts, In acts_grad, Out inputs_grad, int size, double scale, double power, double bias, int pool_size, int stride, int start, bool relu);

// Response normalization within a map: as lrn_forward, over pixels.
//   denoms[y,x] = bias + scale * (sum of inputs[v,u]^2 over the pixels from (y,x) - size / 2 to + size, clipped)
//   acts[y,x]   = inputs[y,x] * denoms[y,x]^-power
void spatial_lrn_forward(Stream, In inputs, Out denoms, Out acts, int size, double scale, double power, double bias);

// Gradient of spatial_lrn_forward.
//   inputs_grad[y,x] = acts_grad[y,x] * denoms[y,x]^-power
//                      - 2 scale power inputs[y,x] * (sum of acts_grad[v,u] * inputs[v,u] * denoms[v,u]^(-power - 1)
//                                                     over the pixels (v,u) whose window holds (y,x))
void spatial_lrn_backward(Stream, In inputs, In denoms, In acts_grad, Out inputs_grad, Out workspace, int size, double scale, double power);
std::int64_t spatial_lrn_backward_workspace(Stream, In inputs, In denoms, In acts_grad, Out inputs_grad, int size, double scale, double power);

// Local contrast normalization: spatial_lrn_forward with denominators of (inputs[v,u] - means[v,u])^2. `means` are those of
// each pixel's window, and of the inputs' type: avg_pool_forward with stride 1 and start -(size / 2).
void lcn_forward(Stream, In inputs, In means, Out denoms, Out acts, int size, double scale, double power, double bias);

// Gradient of lcn_forward as if the means were constants, as in cuda-convnet: that of spatial_lrn_forward, with
// inputs[y,x] - means[y,x] before the sum.
void lcn_backward(Stream, In inputs, In means, In denoms, In acts_grad, Out inputs_grad, Out workspace, int size, double scale, double power);
std::int64_t lcn_backward_workspace(Stream, In inputs, In means, In denoms, In acts_grad, Out inputs_grad, int size, double scale, double power);

// ---- images within the net ----------------------------------------------------------------------------

// Gaussian blur of each map, along its rows and columns, of `size` pixels, an odd number; zero outside the map.
//   acts[y,x] = sum over v,u of weights[v - y] * weights[u - x] * inputs[v,u]
//   weights[i] = exp(-i^2 / (2 stdev^2)), divided by their sum, i from -size / 2 to size / 2
// The gradient is the same op on acts_grad.
void blur(Stream, In inputs, Out acts, int size, double stdev);

// Pixels in steps: crops, mirror images, coarse grids. How many there are is acts' shape; steps may be negative.
//   acts[c,y,x,n] = inputs[c, top + y down, left + x across, n]
void slice_forward(Stream, In inputs, Out acts, int top, int left, int down, int across);

// Gradient of slice_forward: 0 where acts do not come from.
void slice_backward(Stream, In acts_grad, Out inputs_grad, int top, int left, int down, int across);

// Output of resizing: pixels / scale down and across, rounded down.
Shape resize_shape(Shape inputs, double scale);

// Bilinear resizing, centre on centre. Has no gradient.
//   acts[c,y,x,n] = inputs[c, p(y), p(x), n], between pixels the mean of the four around, by their nearness
//   p(i) = i scale + (pixels - outputs scale) / 2, at least 0 and at most pixels - 1.01
void resize(Stream, In inputs, Out acts, double scale);

// A random size of square images, one for the minibatch, by resize, and a random square crop of it. Has no gradient.
// Of `pixels` and `crop` pixels, and of the K sizes crop + i, i from 0 to pixels - floor(pixels / max_scale) = K - 1, the i-th
// is drawn with probability (i + 1)^2 / (K (K + 1) (2 K + 1) / 6); its scale uniformly from max(1, pixels / (size + 1)) to
// pixels / size; images of their own size are not resized. Draws, also of the crop's top and left: words 0 to 3 of
// Philox4x32-10 with the key (seed, purpose) and the counter (0, 0, step low, step high).
void random_scale_crop(Stream, In inputs, In state, Out acts, double max_scale, std::uint32_t seed, std::uint32_t purpose);

// Red, green and blue as brightness and two colour differences. Has no gradient.
//   Y = .2126 R + .7152 G + .0722 B | U = -.09991 R - .33609 G + .436 B | V = .615 R - .55861 G - .05639 B
void rgb_to_yuv(Stream, In inputs, Out acts);

// Red, green and blue from 0 to 1 as L*a*b*; center: L less 50. Has no gradient.
//   X = .49 R + .31 G + .2 B | Y = .17697 R + .8124 G + .01063 B | Z = .01 G + .99 B
//   L = 116 g(Y) - 16 | a = 500 (g(X) - g(Y)) | b = 200 (g(Y) - g(Z))
//   g(t) = t^.3333 above .0088564517, else 7.787037 t + .13793103
void rgb_to_lab(Stream, In inputs, Out acts, bool center);

// ---- neurons -----------------------------------------------------------------------------------------

// The nonlinearities of the config language (SEMANTICS: neurons).
enum class Neuron : std::uint8_t { ident, relu, logistic, tanh, softrelu, abs, square, sqrt, linear, brelu, drelu, log };

// Nonlinearity, element by element.
//   ident x | relu max(0, x) | logistic 1 / (1 + e^-x) | tanh a tanh(b x) | softrelu log(1 + e^x), x above 4
//   abs |x| | square x^2 | sqrt x^1/2 | linear a x + b | brelu min(a, max(0, x)) | drelu x - a tanh(x / a) | log log(a + x)
void neuron_forward(Stream, In inputs, Out acts, Neuron neuron, double a, double b);

// Gradient of neuron_forward. `saved` is the inputs for abs, square, softrelu, drelu and log, and the acts for all others.
// At a kink: relu and brelu 0, abs -1 at 0.
void neuron_backward(Stream, In saved, In acts_grad, Out inputs_grad, Neuron neuron, double a, double b);

// Relu with noise (Nair and Hinton 2010), whose standard deviation is the unit's value without it.
//   acts = max(0, r + r * noise)          r = max(0, inputs)
// The noise of element e of image n is number e % 4 of four standard normal ones, made (Box and Muller 1958) of the words
// of Philox4x32-10 with the key (seed, purpose) and the counter (e / 4, first_image + n, step low, step high); e = (c height + y) width + x.
// The gradient is relu's by acts, as in cuda-convnet: the noise is held fast.
void noisy_relu(Stream, In inputs, In state, Out acts, std::uint32_t seed, std::uint32_t purpose, int first_image);

// ---- dropout -------------------------------------------------------------------------------------------

// Dropout (Hinton et al. 2012): keeps each unit with probability `keep` and multiplies it by `scale`
// (1 for `hs` and `dropout2`, 1 / keep for the inverted `dropout`); units not kept are 0.
// Element e of image n is kept if word e % 4 of Philox4x32-10 is below keep * 2^32, with the key
// (seed, purpose) and the counter (e / 4, first_image + n, step low, step high); e = (c height + y) width + x.
// first_image: where image 0 stands in the minibatch, of which a device may have a part.
// The gradient is the same op on acts_grad: nothing is stored.
void dropout(Stream, In inputs, In state, Out acts, double keep, double scale, std::uint32_t seed, std::uint32_t purpose, int first_image);

// ---- softmax and cost ------------------------------------------------------------------------------------

// Softmax over the rows (channels) of each image, the maximum subtracted first.
//   acts[c,n] = exp(inputs[c,n] - max) / sum over k of exp(inputs[k,n] - max)
void softmax_forward(Stream, In inputs, Out acts);

// Gradient of softmax_forward.
//   inputs_grad[c,n] = acts[c,n] * (acts_grad[c,n] - sum over k of acts_grad[k,n] * acts[k,n])
void softmax_backward(Stream, In acts, In acts_grad, Out inputs_grad);

// Multinomial logistic regression. costs: (3,) float64, summed over the images:
//   -log(probs[label]), top-1 errors, top-k errors.
// An image's credit is the share of the top-k slots that the classes tied with the label would take:
// 0 if k classes are likelier, 1 if all tied ones fit in, else slots left / number tied.
// labels: (1, 1, 1, images), whole numbers from 0 (cuda-convnet's rule, SEMANTICS 3.4).
void logreg_forward(Stream, In labels, In probs, Out costs, Out workspace, int topk);
std::int64_t logreg_forward_workspace(Stream, In labels, In probs, Out costs, int topk);

// Gradient of the first cost of logreg_forward by probs, times coeff: -coeff / probs[label] at the label.
void logreg_backward(Stream, In labels, In probs, Out probs_grad, double coeff);

// logreg_backward and softmax_backward in one, by the inputs of the softmax, with nothing divided:
//   inputs_grad[c,n] = coeff * (probs[c,n] - (c == label[n]))
void logreg_softmax_backward(Stream, In labels, In probs, Out inputs_grad, double coeff);

// softmax_forward, logreg_forward, logreg_softmax_backward and check_finite of the costs, to the bit:
//   probs = softmax of inputs   costs = logreg of labels, probs   inputs_grad[c,n] = coeff * (probs[c,n] - (c == label[n]))
// Of inputs in bfloat16, labels and probs are float32.
void logreg_softmax(Stream, In labels, In inputs, Out state, Out probs, Out costs, Out inputs_grad, Out workspace, int topk, double coeff);
std::int64_t logreg_softmax_workspace(Stream, In labels, In inputs, Out state, Out probs, Out costs, Out inputs_grad, int topk, double coeff);

// Sum of squares. costs: (1,) float64. Its gradient is scaled_copy with the factor 2 coeff.
//   costs[0] = sum over r,n of inputs[r,n]^2           r: the row, which is channel, y and x
void sum2_forward(Stream, In inputs, Out costs);

// Sum of squares, those of each image times its gate. gates: (1, 1, 1, images); costs: (1,) float64.
//   costs[0] = sum over n of gates[n] * (sum over r of inputs[r,n]^2)
void gsum2_forward(Stream, In gates, In inputs, Out costs);

// Gradient of gsum2_forward by its gates.
//   gates_grad[n] = coeff * (sum over r of inputs[r,n]^2)
void gsum2_backward_gates(Stream, In inputs, Out gates_grad, double coeff);

// Gradient of gsum2_forward by its inputs.
//   inputs_grad[r,n] = 2 coeff gates[n] inputs[r,n]
void gsum2_backward_inputs(Stream, In gates, In inputs, Out inputs_grad, double coeff);

// Sum of squares that forgives what is far off. costs: (1,) float64.
//   costs[0] = sum over r,n of log(1 + (inputs[r,n] - targets[r,n])^2)
void rflickr_forward(Stream, In targets, In inputs, Out costs);

// Gradient of rflickr_forward by its inputs.
//   inputs_grad[r,n] = 2 coeff d / (1 + d^2)           d = inputs[r,n] - targets[r,n]
void rflickr_backward(Stream, In targets, In inputs, Out inputs_grad, double coeff);

// Binary cross-entropy: each row of probs is the probability that its target is 1. costs: (3,) float64:
//   sum over r,n of -(positive_weight * targets[r,n] * log(probs[r,n]) + (1 - targets[r,n]) * log(1 - probs[r,n]))
//   numbers on the wrong side of 1/2, over the rows
//   images whose likeliest row has a target of 0; the mean where several rows are equally likely
// The logarithm of 0 is taken as -50 (cuda-convnet's rule, SEMANTICS 7.0).
void bce_forward(Stream, In targets, In probs, Out costs, double positive_weight);

// Gradient of the first cost of bce_forward by probs, times coeff. A division by 0 gives 0, for the logarithm of 0 is
// constant; one by less than 2^-126 gives 2^126.
//   probs_grad = coeff * ((1 - targets) / (1 - probs) - positive_weight * targets / probs)
void bce_backward(Stream, In targets, In probs, Out probs_grad, double coeff, double positive_weight);

// bce_backward and neuron_backward of a logistic neuron in one, by the inputs of the neuron, with nothing divided:
//   inputs_grad = coeff * ((1 - targets) * probs - positive_weight * targets * (1 - probs))
void bce_logistic_backward(Stream, In targets, In probs, Out inputs_grad, double coeff, double positive_weight);

// ---- sums, images and updates ------------------------------------------------------------------------------

// acts = factor * inputs: element-wise sums, concatenation (into rows of acts), dropout when testing.
void scaled_copy(Stream, In inputs, Out acts, double factor);

// halves = values in half precision (float16), rounded to the nearest, ties to even: what acts and gradients cross
// from one device to another in, where the config says quantF or quantB = half. It cannot be added to.
void to_half(Stream, In values, Out halves);

// values = halves, numbers in half precision, as to_half leaves them.
void from_half(Stream, In halves, Out values);

// Element-wise maximum of two; chained it is that of any number.
//   acts = max(inputs, others)
void eltmax_forward(Stream, In inputs, In others, Out acts);

// Gradient of eltmax_forward, or of a chain of them, by one of its inputs: the full gradient wherever it is the maximum,
// ties included, as in cuda-convnet.
//   inputs_grad = acts_grad where inputs == acts, else 0
void eltmax_backward(Stream, In inputs, In acts, In acts_grad, Out inputs_grad);

// Sums of some columns of a matrix, of any rows: the weights of a class are the sums of those of the nodes above it.
//   sums[r,i] = sum over k from starts[i] to starts[i + 1] - 1 of inputs[r, members[k]]
// starts: (columns of sums + 1,) and members: (any number,) are whole numbers, at most 2^24; where they name nothing that
// is there, the sum is NaN.
void sum_columns(Stream, In inputs, In starts, In members, Out sums);

// Pixels as the net sees them: crop, mirror, minus mean.
//   acts[c,y,x,n] = pixels[n, c, y + top, (mirrored ? width - 1 - x : x) + left] - mean[c,y,x]
// pixels: uint8, image by image as they are read: (images, channels, height, width), larger than acts by twice the crop
// border; mean: (channels, height, width).
// random: top, left and mirrored come from words 0, 1, 2 of Philox4x32-10 with the key (seed, purpose) and
// the counter (0, (first_image + n) / images_per_crop, step low, step high): word * range >> 32, and the lowest bit.
// Else the crop is a view: 0 the centre, 1 to 4 the corners top left, top right, bottom left and bottom right, 5 to 9
// these five mirrored. first_image: as in dropout.
void image_forward(Stream, In pixels, In mean, In state, Out acts, bool random, int view, int images_per_crop, std::uint32_t seed, std::uint32_t purpose, int first_image);

// image_forward with random crops, and colour noise (Krizhevsky et al. 2012, section 4.1): one colour for all pixels of an
// image is added.
//   acts[c,y,x,n] = scale * (pixels[...] - mean[c,y,x] + sum over k of colors[c,k] * normal[k,n])
// colors: (channels, 1 to 4), each column a direction times its standard deviation. normal: as noisy_relu makes
// them, of the words of the counter (1, first_image + n, step low, step high).
void noisy_image_forward(Stream, In pixels, In mean, In colors, In state, Out acts, double scale, int images_per_crop, std::uint32_t seed, std::uint32_t purpose, int first_image);

// SGD with momentum and weight decay, in cuda-convnet's order. Both outputs are read and overwritten.
//   increments = momentum * increments - rate * weights_grad / images - decay * rate * weights
//   weights   += increments
// rate = state[state_rates + rate_slot]; nothing changes unless state[state_finite] is 1.
void sgd_update(Stream, In state, In weights_grad, Out increments, Out weights, int rate_slot, double momentum, double decay, int images);

// sgd_update of 1 to 24 tensors in one launch, each with its own scalars, to the bit.
void sgd_update_many(Stream, In state, Many<In> weights_grad, Many<Out> increments, Many<Out> weights, Many<int> rate_slot, Many<double> momentum, Many<double> decay, Many<int> images);

// sgd_update of weights of which each column is shared by as many others as `counts`, (columns,), says: its gradient is
// theirs together, and it goes a share of the way (treefc, SEMANTICS 7.5).
//   increments = momentum * increments - rate / counts * (weights_grad / images + decay / counts * weights)
//   weights   += increments
void tree_update(Stream, In state, In weights_grad, In counts, Out increments, Out weights, int rate_slot, double momentum, double decay, int images);

// sgd_update by a rule that divides the gradient by its own spread of late (Graves 2013, equation 38); all four outputs
// are read and overwritten.
//   g           = weights_grad / images
//   means       = momentum * means   + (1 - momentum) * g
//   squares     = momentum * squares + (1 - momentum) * g^2
//   increments  = momentum * increments - rate * g / sqrt(max(squares - means^2, 0) + epsilon) - decay * rate * weights
//   weights    += increments
void adaptive_update(Stream, In state, In weights_grad, Out means, Out squares, Out increments, Out weights, int rate_slot, double momentum, double decay, double epsilon, int images);

// After an update, the columns of some matrices, weights: (matrices, rows, columns), are brought back within limits; each
// column is a filter. Nothing changes unless state[state_finite] is 1; a column of zeros stays as it is.
//   norm = sqrt(sum of weights[p,:,n]^2)
//   weights[p,:,n] *= limit / norm  where norm > limit; with `exactly`, everywhere
void limit_norms(Stream, In state, Out weights, double limit, bool exactly);

// The same for how far the weights of a column are from their mean (SEMANTICS 7.6: not quite a standard deviation).
//   spread = sqrt(sum over r of (weights[p,r,n] - mean of weights[p,:,n])^2) / rows
//   weights[p,:,n] *= least / spread  where spread < least;  most / spread  where spread > most
// A column of equal weights stays as it is.
void limit_spreads(Stream, In state, Out weights, double least, double most);

// state[state_finite] = 0 if any value is infinite or not a number; else state is left as it is.
void check_finite(Stream, In values, Out state);

}  // namespace convnet
