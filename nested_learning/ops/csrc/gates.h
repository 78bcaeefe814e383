// The gates of a chunk, unrolled by recursion: ops/gates.py:unroll and its derivative.
#pragma once

#include <cmath>

#include "products.h"

namespace nested {

// For the tokens t of a chunk: the factors `kept` and `pushed` of the start's weights and momentum in the weights, and
// `total` of the start's momentum in the momentum; and how much of the write of token i is left at token t, written[t, i]
// in the weights, momentum[t, i] in the momentum. `kept`, `pushed` and `total` have one more entry, the first, for the
// chunk's start: 1, 0, 1.
template <class T>
struct ChunkGates {
  int64_t stride;  // of the square matrices
  T *retention, *keep, *kept, *pushed, *total;
  T *written, *momentum;

  static int64_t scratch(int64_t chunk) { return 5 * padded<T>(chunk + 1) + 2 * chunk * padded<T>(chunk); }

  ChunkGates(T* space, int64_t chunk) : stride(padded<T>(chunk)) {
    const int64_t line = padded<T>(chunk + 1);
    retention = space, keep = space + line;
    kept = space + 2 * line, pushed = space + 3 * line, total = space + 4 * line;
    written = space + 5 * line, momentum = written + chunk * stride;
  }

  // A recursion over rows: two multiplications an entry, and no exp of differences as in the eager form.
  void open(int64_t tokens, const T* rate, const T* log_retention, const T* log_momentum) {
    kept[0] = 1, pushed[0] = 0, total[0] = 1;
    for (int64_t t = 0; t < tokens; ++t) {
      retention[t] = std::exp(log_retention[t]);
      keep[t] = log_momentum ? std::exp(log_momentum[t]) : T(0);
      kept[t + 1] = retention[t] * kept[t];
      total[t + 1] = keep[t] * total[t];
      pushed[t + 1] = log_momentum ? retention[t] * pushed[t] + total[t + 1] : T(0);
      T *w = written + t * stride, *m = momentum + t * stride;
      for (int64_t i = 0; i < stride; i += kLanes<T>) {
        at(m + i) = t ? keep[t] * at(m - stride + i) : typename Pack<T>::type{};
        at(w + i) = t ? retention[t] * at(w - stride + i) : typename Pack<T>::type{};
      }
      m[t] += rate[t];
      for (int64_t i = 0; i < stride; i += kLanes<T>) at(w + i) += at(m + i);
    }
  }

  // Gradients of the logarithms and rates, given those of kept[1..], pushed[1..], the last total, written and the last
  // row of momentum. `d_written` and `d_last` are overwritten.
  void backward(int64_t tokens, const T* d_kept, const T* d_pushed, T d_total, T* d_written, T* d_last, T* d_rate,
                T* d_log_retention, T* d_log_momentum) const {
    T g_kept = 0, g_pushed = 0, g_total = d_total;
    // the recursion of `open` in reverse: row t gets what comes back from row t + 1, then passes on
    for (int64_t t = tokens - 1; t >= 0; --t) {
      const bool is_last = t == tokens - 1;
      const T a = is_last ? T(0) : retention[t + 1], e = is_last ? T(0) : keep[t + 1];
      g_kept = d_kept[t + 1] + a * g_kept;
      g_pushed = d_pushed[t + 1] + a * g_pushed;
      g_total = g_pushed + (is_last ? g_total : e * g_total);
      // in place: `d_written` becomes the whole gradient of row t, from its own use and from the later rows
      T* g = d_written + t * stride;
      typename Pack<T>::type by_retention = {}, by_keep = {};
      for (int64_t i = 0; i < stride; i += kLanes<T>) {
        if (!is_last) at(g + i) += a * at(g + stride + i);
        at(d_last + i) = at(g + i) + (is_last ? at(d_last + i) : e * at(d_last + i));
        if (t) by_retention += at(g + i) * at(written + (t - 1) * stride + i);
        if (t) by_keep += at(d_last + i) * at(momentum + (t - 1) * stride + i);
      }
      d_rate[t] = d_last[t];
      d_log_retention[t] = retention[t] * (g_kept * kept[t] + g_pushed * pushed[t] + nested::total<T>(by_retention));
      if (d_log_momentum) d_log_momentum[t] = keep[t] * (g_total * total[t] + nested::total<T>(by_keep));
    }
  }
};

}  // namespace nested
