// A matrix memory over a sequence, forward and backward: ops/matrix.py, fused for each row and head.
//
// A chunk is small enough that everything between its inputs and outputs stays in the CPU's cache. The forward pass stores the state [W; S] at the start of every chunk;
// the backward pass recomputes a chunk from it. Names below: the errors e solve (1 - x) e = r; reads are
// y = kept q W + pushed q S + l e; after the chunk W = kept W + pushed S + kw^T e and S = total S + ks^T e. `x`, `l`,
// `kw` and `ks` include the minus sign of gradient descent.

#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "gates.h"
#include "products.h"

namespace nested {
namespace {

// The numbers that ops/fused.py:sizes passes, in this order.
struct Sizes {
  int64_t rows, heads, tokens, inputs, outputs, chunk, place, erasures, stale, base_answers, read_token, threads;
  int64_t chunks() const { return (place + tokens + chunk - 1) / chunk; }
};

struct View {  // of a tensor [b h t d] whose last dimension is dense
  char* data;
  const int64_t* strides;
  template <class T>
  T* row(int64_t b, int64_t h, int64_t t) const {
    return reinterpret_cast<T*>(data) + b * strides[0] + h * strides[1] + t * strides[2];
  }
  explicit operator bool() const { return data != nullptr; }
};

// Aligned, zeroed memory of one thread, kept from call to call: page faults of new memory would cost more than a short
// call. Zeroed, because products read the padding of rows and it must not contain NaN.
inline char* scratch(size_t bytes) {
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  static thread_local std::unique_ptr<char, Free> space;
  static thread_local size_t size = 0;
  if (bytes > size) {
    space.reset();
    space.reset(static_cast<char*>(std::aligned_alloc(64, bytes)));
    size = bytes;
  }
  std::memset(space.get(), 0, bytes);
  return space.get();
}

// Hands out parts of the scratch memory; it aborts if a constructor takes more than it reserved.
template <class T>
class Arena {
 public:
  explicit Arena(int64_t size) : size_(padded<T>(size)), space_(reinterpret_cast<T*>(scratch(size_ * sizeof(T)))) {}
  T* take(int64_t size) {
    T* taken = space_ + used_;
    used_ += padded<T>(size);
    return used_ <= size_ ? taken : (std::abort(), nullptr);
  }

 private:
  int64_t size_, used_ = 0;
  T* space_;
};

// Copy dense or strided rows into padded ones.
template <class T>
void load(int64_t rows, int64_t width, const T* from, int64_t stride, T* to) {
  for (int64_t r = 0; r < rows; ++r) std::memcpy(to + r * padded<T>(width), from + r * stride, width * sizeof(T));
}

// Copy padded rows back.
template <class T>
void store(int64_t rows, int64_t width, const T* from, T* to, int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) std::memcpy(to + r * stride, from + r * padded<T>(width), width * sizeof(T));
}

// The buffers of one head of one row, and what both passes compute for a chunk.
template <class T>
struct Head {
  const Sizes& s;
  int64_t in, out, line;  // padded widths
  Arena<T> arena;
  ChunkGates<T> gates;
  T *q, *k, *kt, *e, *x, *l, *scaled, *weight, *momentum, *reference, *base, *coefficient, *keys_keys, *queries_keys;

  // `extra`: how much more the backward pass takes
  Head(const Sizes& sizes, int64_t extra)
      : s(sizes), in(padded<T>(s.inputs)), out(padded<T>(s.outputs)), line(padded<T>(s.chunk)),
        arena(ChunkGates<T>::scratch(s.chunk) + 3 * s.chunk * in + in * line + s.chunk * out + 4 * s.chunk * line +
              4 * in * out + line + 256 + extra),
        gates(arena.take(ChunkGates<T>::scratch(s.chunk)), s.chunk) {
    q = arena.take(s.chunk * in), k = arena.take(s.chunk * in), scaled = arena.take(s.chunk * in);
    kt = arena.take(in * line), e = arena.take(s.chunk * out);
    x = arena.take(s.chunk * line), l = arena.take(s.chunk * line);
    keys_keys = arena.take(s.chunk * line), queries_keys = arena.take(s.chunk * line);
    weight = arena.take(in * out), momentum = arena.take(in * out), reference = arena.take(in * out);
    base = arena.take(in * out), coefficient = arena.take(line);
  }

  void product(int64_t rows, const T* a, const T* b, T* c) { add_product<false>(rows, out, s.inputs, a, in, b, out, c, out); }
  void outer(int64_t tokens, const T* a, const T* b, T* c) { add_product<true>(s.inputs, out, tokens, a, in, b, out, c, out); }

  // `scaled` = coefficient * k
  const T* scaled_keys(int64_t tokens) {
    scale_rows(tokens, in, coefficient, k, scaled);
    return scaled;
  }

  // Coefficients of k W in the errors. If the chunk began in an earlier call, its reference is not W but a matrix of its
  // own, and the read of the chunk's start is added separately.
  void of_weight(int64_t tokens, bool began_here) {
    for (int64_t t = 0; t < tokens; ++t) coefficient[t] = s.erasures * gates.kept[t] + (began_here ? s.stale : 0);
  }
  void of_momentum(int64_t tokens) {
    for (int64_t t = 0; t < tokens; ++t) coefficient[t] = s.erasures * gates.pushed[t];
  }
  void constant(int64_t tokens, int64_t value) { std::fill(coefficient, coefficient + tokens, T(value)); }

  // Compute the errors of the chunk whose keys are in `k` and whose values are in `e`, in place: first the right-hand
  // side (values, and reads of the matrices at the chunk's start), then the triangular solve.
  void errors(int64_t tokens, bool began_here, bool has_momentum, bool has_base) {
    for (int64_t j = 0; j < tokens * out; j += kLanes<T>) at(e + j) = -at(e + j);
    if (s.erasures || (s.stale && began_here)) of_weight(tokens, began_here), product(tokens, scaled_keys(tokens), weight, e);
    if (s.erasures && has_momentum) of_momentum(tokens), product(tokens, scaled_keys(tokens), momentum, e);
    if (s.stale && !began_here) product(tokens, k, reference, e);
    if (has_base && s.base_answers) constant(tokens, s.base_answers), product(tokens, scaled_keys(tokens), base, e);
    // without erasures no error depends on another: there is nothing to solve
    if (!s.erasures) return;
    std::memset(keys_keys, 0, tokens * line * sizeof(T));
    add_product<false>(tokens, line, s.inputs, k, in, kt, line, keys_keys, line, Shape::kLowerResult);
    std::memset(x, 0, line * sizeof(T));
    // the erasure of token t reads the weights just before it, hence the decays of row t - 1
    for (int64_t t = 1; t < tokens; ++t)
      for (int64_t j = 0; j < line; j += kLanes<T>)
        at(x + t * line + j) = T(-s.erasures) * at(keys_keys + t * line + j) * at(gates.written + (t - 1) * line + j);
    // forward substitution by blocks of kRows tokens: all earlier blocks in one product, which runs at full speed, and
    // only the small triangle of the block itself token by token
    for (int64_t first = 0; first < tokens; first += kRows) {
      const int64_t end = std::min(tokens, first + kRows);
      add_product<false>(end - first, out, first, x + first * line, line, e, out, e + first * out, out);
      for (int64_t t = first + 1; t < end; ++t)
        for (int64_t i = first; i < t; ++i)
          for (int64_t j = 0; j < out; j += kLanes<T>) at(e + t * out + j) += x[t * line + i] * at(e + i * out + j);
    }
  }

  // Solve (1 - x)^T g' = g in place: the same blocks, from the last token to the first.
  void errors_backward(int64_t tokens, T* g) {
    if (!s.erasures) return;
    for (int64_t first = (tokens - 1) / kRows * kRows; first >= 0; first -= kRows) {
      const int64_t end = std::min(tokens, first + kRows);
      add_product<true>(end - first, out, tokens - end, x + end * line + first, line, g + end * out, out, g + first * out, out);
      for (int64_t i = end - 2; i >= first; --i)
        for (int64_t t = i + 1; t < end; ++t)
          for (int64_t j = 0; j < out; j += kLanes<T>) at(g + i * out + j) += x[t * line + i] * at(g + t * out + j);
    }
  }

  // l = -(q k^T) * written: how much of the error of each token its readers get
  void scores(int64_t tokens) {
    std::memset(queries_keys, 0, tokens * line * sizeof(T));
    add_product<false>(tokens, line, s.inputs, q, in, kt, line, queries_keys, line, Shape::kLowerResult);
    for (int64_t j = 0; j < tokens * line; j += kLanes<T>) at(l + j) = -at(queries_keys + j) * at(gates.written + j);
  }

  // `scaled` = -k * what is left of each write at the end of the chunk. `left` is a square matrix of which the last row
  // counts: `written` for the weights, `momentum` for the momentum.
  const T* written_keys(int64_t tokens, const T* left) {
    for (int64_t t = 0; t < tokens; ++t) coefficient[t] = -left[(tokens - 1) * line + t];
    return scaled_keys(tokens);
  }
};

// The tokens of chunk n that are in this call, and whether the chunk began in it: the first chunk may have begun in an
// earlier call, `place` tokens ago.
struct Span {
  int64_t first, tokens;
  bool began_here;
  Span(const Sizes& s, int64_t n)
      : first(std::max<int64_t>(0, n * s.chunk - s.place)),
        tokens(std::min(s.tokens, (n + 1) * s.chunk - s.place) - first),
        began_here(n > 0 || s.place == 0) {}
};

// The order in which ops/fused.py passes tensors.
enum Tensors { kQ, kK, kV, kY, kDQ, kDK, kDV, kDY, kNumTensors };
enum Arrays {
  kRate, kLogRetention, kLogMomentum, kReference, kWeight, kMomentum, kBase, kStarts,
  kReferenceAfter, kWeightAfter, kMomentumAfter,
  kDRate, kDLogRetention, kDLogMomentum, kDReference, kDWeight, kDMomentum, kDBase, kNumArrays
};

// The arguments of a call. A null pointer means that the tensor is absent: no momentum, no base, no reads.
template <class T>
struct Call {
  const Sizes& s;
  View views[kNumTensors];
  T* arrays[kNumArrays];

  T* line(Arrays which, int64_t head) const { return arrays[which] ? arrays[which] + head * s.tokens : nullptr; }
  T* matrix(Arrays which, int64_t head) const { return arrays[which] ? arrays[which] + head * s.inputs * s.outputs : nullptr; }
  T* start(int64_t head, int64_t chunk) const {
    return arrays[kStarts] + (head * s.chunks() + chunk) * (1 + (arrays[kMomentum] != nullptr)) * s.inputs * s.outputs;
  }
  void load_matrix(Arrays which, int64_t head, T* to) const {
    if (arrays[which]) load(s.inputs, s.outputs, matrix(which, head), s.outputs, to);
  }
  void store_matrix(const T* from, Arrays which, int64_t head) const {
    if (arrays[which]) store(s.inputs, s.outputs, from, matrix(which, head), s.outputs);
  }
  void load_tokens(Tensors which, int64_t b, int64_t h, const Span& span, int64_t width, T* to) const {
    load(span.tokens, width, views[which].row<T>(b, h, span.first), views[which].strides[2], to);
  }
  void store_tokens(const T* from, Tensors which, int64_t b, int64_t h, const Span& span, int64_t width) const {
    store(span.tokens, width, from, views[which].row<T>(b, h, span.first), views[which].strides[2]);
  }
  void open_gates(Head<T>& head, int64_t bh, const Span& span) const {
    const T* momentum = line(kLogMomentum, bh);
    head.gates.open(span.tokens, line(kRate, bh) + span.first, line(kLogRetention, bh) + span.first,
                    momentum ? momentum + span.first : nullptr);
  }
};

template <class T>
void forward(const Call<T>& call, Head<T>& head, T* y, int64_t bh) {
  const Sizes& s = call.s;
  const int64_t b = bh / s.heads, h = bh % s.heads, in = head.in, out = head.out, line = head.line;
  const bool has_momentum = call.arrays[kMomentum], has_base = call.arrays[kBase], reads = bool(call.views[kY]);
  call.load_matrix(kReference, bh, head.reference), call.load_matrix(kWeight, bh, head.weight);
  call.load_matrix(kMomentum, bh, head.momentum), call.load_matrix(kBase, h, head.base);
  for (int64_t n = 0; n < s.chunks(); ++n) {
    const Span span(s, n);
    const int64_t c = span.tokens;
    if (span.began_here) std::memcpy(head.reference, head.weight, in * out * sizeof(T));
    if (call.arrays[kStarts]) {
      store(s.inputs, s.outputs, head.weight, call.start(bh, n), s.outputs);
      if (has_momentum) store(s.inputs, s.outputs, head.momentum, call.start(bh, n) + s.inputs * s.outputs, s.outputs);
    }
    call.load_tokens(kK, b, h, span, s.inputs, head.k), call.load_tokens(kV, b, h, span, s.outputs, head.e);
    call.open_gates(head, bh, span);
    transpose(c, in, head.k, in, head.kt, line);
    head.errors(c, span.began_here, has_momentum, has_base);
    if (reads) {
      call.load_tokens(kQ, b, h, span, s.inputs, head.q);
      std::memset(y, 0, c * out * sizeof(T));
      if (has_base) head.product(c, head.q, head.base, y);
      if (s.read_token) {
        head.scores(c);
        add_product<false>(c, out, c, head.l, line, head.e, out, y, out, Shape::kLowerFactor);
        for (int64_t t = 0; t < c; ++t) head.coefficient[t] = head.gates.kept[t + 1];
        scale_rows(c, in, head.coefficient, head.q, head.scaled), head.product(c, head.scaled, head.weight, y);
        for (int64_t t = 0; t < c; ++t) head.coefficient[t] = head.gates.pushed[t + 1];
        if (has_momentum) scale_rows(c, in, head.coefficient, head.q, head.scaled), head.product(c, head.scaled, head.momentum, y);
      } else {
        head.product(c, head.q, head.reference, y);
      }
      call.store_tokens(y, kY, b, h, span, s.outputs);
    }
    // W before S: W takes the momentum of the chunk's start
    const T kept = head.gates.kept[c], pushed = head.gates.pushed[c], total = head.gates.total[c];
    for (int64_t j = 0; j < in * out; j += kLanes<T>) {
      at(head.weight + j) = kept * at(head.weight + j);
      if (!has_momentum) continue;
      at(head.weight + j) += pushed * at(head.momentum + j);
      at(head.momentum + j) = total * at(head.momentum + j);
    }
    head.outer(c, head.written_keys(c, head.gates.written), head.e, head.weight);
    if (has_momentum) head.outer(c, head.written_keys(c, head.gates.momentum), head.e, head.momentum);
  }
  const bool ends = (s.place + s.tokens) % s.chunk == 0;
  call.store_matrix(head.weight, kWeightAfter, bh), call.store_matrix(head.momentum, kMomentumAfter, bh);
  call.store_matrix(ends ? head.weight : head.reference, kReferenceAfter, bh);
}

// The gradients of one head. `d_weight`, `d_momentum` and `d_reference` are the gradients at the state after the current
// chunk; chunks run from the last to the first. `of_*` add the gradients of one part of the forward pass.
template <class T>
struct Backward {
  const Call<T>& call;
  const Sizes& s;
  Head<T> head;
  int64_t in, out, line;
  T *dq, *dk, *dy, *de, *product_in, *square, *d_written, *d_last, *d_kept, *d_pushed, *coefficient;
  T *d_weight, *d_momentum, *d_reference, *d_base, *d_weight_before, *d_momentum_before, *transposed, *errors_transposed;

  static int64_t extra(const Sizes& s) {
    const int64_t in = padded<T>(s.inputs), out = padded<T>(s.outputs), line = padded<T>(s.chunk);
    return 4 * s.chunk * in + 2 * s.chunk * out + 2 * s.chunk * line + 5 * padded<T>(s.chunk + 1) + 6 * in * out +
           padded<T>(s.outputs) * in + out * line + 512;
  }

  explicit Backward(const Call<T>& c) : call(c), s(c.s), head(c.s, extra(c.s)), in(head.in), out(head.out), line(head.line) {
    auto& a = head.arena;
    dq = a.take(s.chunk * in), dk = a.take(s.chunk * in), product_in = a.take(s.chunk * in);
    dy = a.take(s.chunk * out), de = a.take(s.chunk * out);
    square = a.take(s.chunk * line), d_written = a.take(s.chunk * line), d_last = a.take(line);
    d_kept = a.take(s.chunk + 1), d_pushed = a.take(s.chunk + 1), coefficient = a.take(s.chunk + 1);
    d_weight = a.take(in * out), d_momentum = a.take(in * out), d_reference = a.take(in * out), d_base = a.take(in * out);
    d_weight_before = a.take(in * out), d_momentum_before = a.take(in * out);
    transposed = a.take(out * in), errors_transposed = a.take(out * line);
  }

  // product_in = rows matrix^T
  const T* times_transposed(int64_t c, const T* rows, const T* matrix) {
    transpose(s.inputs, out, matrix, out, transposed, in);
    std::memset(product_in, 0, c * in * sizeof(T));
    add_product<false>(c, in, s.outputs, rows, out, transposed, in, product_in, in);
    return product_in;
  }

  // Gradients of the writes, W += kw^T e: of the errors, of the keys, and of what is left of each write.
  void of_writes(int64_t c, const T* left, const T* d_state, T* d_left) {
    head.product(c, head.written_keys(c, left), d_state, de);  // leaves -left in head.coefficient
    const T* back = times_transposed(c, head.e, d_state);
    add_scaled_rows(c, in, head.coefficient, back, dk);
    std::memset(coefficient, 0, c * sizeof(T));
    add_row_dots(c, in, head.k, back, coefficient);
    for (int64_t t = 0; t < c; ++t) d_left[t] -= coefficient[t];
  }

  // Gradients of `scale * (rows matrix)`, a part of y or r: of the rows, of the matrix, and (in `coefficient`) of scale.
  void of_read(int64_t c, const T* rows, const T* scale, const T* d, const T* matrix, T* d_rows, T* d_matrix) {
    const T* back = times_transposed(c, d, matrix);
    add_scaled_rows(c, in, scale, back, d_rows);
    std::memset(coefficient, 0, c * sizeof(T));
    add_row_dots(c, in, rows, back, coefficient);
    scale_rows(c, in, scale, rows, head.scaled);
    head.outer(c, head.scaled, d, d_matrix);
  }

  void add_to(T* line_of_gradients, int64_t c, int64_t times) {
    for (int64_t t = 0; t < c; ++t) line_of_gradients[t] += times * coefficient[t];
  }

  void of_reads(int64_t c, bool has_momentum, bool has_base) {
    T* scale = head.coefficient;
    if (has_base) head.constant(c, 1), of_read(c, head.q, scale, dy, head.base, dq, d_base);
    if (!s.read_token) {
      head.constant(c, 1), of_read(c, head.q, scale, dy, head.reference, dq, d_reference);
      return;
    }
    std::copy(head.gates.kept + 1, head.gates.kept + 1 + c, scale);
    of_read(c, head.q, scale, dy, head.weight, dq, d_weight_before), add_to(d_kept + 1, c, 1);
    if (has_momentum) {
      std::copy(head.gates.pushed + 1, head.gates.pushed + 1 + c, scale);
      of_read(c, head.q, scale, dy, head.momentum, dq, d_momentum_before), add_to(d_pushed + 1, c, 1);
    }
    add_product<true>(c, out, c, head.l, line, dy, out, de, out, Shape::kUpperFactor);
    std::memset(square, 0, c * line * sizeof(T));
    add_product<false>(c, line, s.outputs, dy, out, errors_transposed, line, square, line, Shape::kLowerResult);
    for (int64_t j = 0; j < c * line; j += kLanes<T>) {
      at(d_written + j) -= at(square + j) * at(head.queries_keys + j);
      at(square + j) = -at(square + j) * at(head.gates.written + j);
    }
    add_product<false>(c, in, c, square, line, head.k, in, dq, in, Shape::kLowerFactor);
    add_product<true>(c, in, c, square, line, head.q, in, dk, in, Shape::kUpperFactor);
  }

  void of_errors(int64_t c, bool began_here, bool has_momentum, bool has_base) {
    head.errors_backward(c, de);
    T* scale = head.coefficient;
    if (s.erasures) {
      std::memset(square, 0, c * line * sizeof(T));
      add_product<false>(c, line, s.outputs, de, out, errors_transposed, line, square, line, Shape::kLowerResult);
      for (int64_t t = c - 1; t > 0; --t)
        for (int64_t j = 0; j < line; j += kLanes<T>) {
          const int64_t here = t * line + j;
          at(d_written + here - line) -= T(s.erasures) * at(square + here) * at(head.keys_keys + here);
          at(square + here) = T(-s.erasures) * at(square + here) * at(head.gates.written + here - line);
        }
      std::memset(square, 0, line * sizeof(T));
      add_product<false>(c, in, c, square, line, head.k, in, dk, in, Shape::kLowerFactor);
      add_product<true>(c, in, c, square, line, head.k, in, dk, in, Shape::kUpperFactor);
    }
    if (s.erasures || (s.stale && began_here)) {
      head.of_weight(c, began_here);
      of_read(c, head.k, scale, de, head.weight, dk, d_weight_before), add_to(d_kept, c, s.erasures);
    }
    if (s.erasures && has_momentum) {
      head.of_momentum(c);
      of_read(c, head.k, scale, de, head.momentum, dk, d_momentum_before), add_to(d_pushed, c, s.erasures);
    }
    if (s.stale && !began_here) head.constant(c, 1), of_read(c, head.k, scale, de, head.reference, dk, d_reference);
    if (has_base && s.base_answers) {
      head.constant(c, s.base_answers), of_read(c, head.k, scale, de, head.base, dk, d_base);
    }
  }

  void chunk(int64_t bh, int64_t n) {
    const Span span(s, n);
    const int64_t c = span.tokens, b = bh / s.heads, h = bh % s.heads;
    const bool has_momentum = call.arrays[kMomentum], has_base = call.arrays[kBase], reads = bool(call.views[kQ]);
    load(s.inputs, s.outputs, call.start(bh, n), s.outputs, head.weight);
    if (has_momentum) load(s.inputs, s.outputs, call.start(bh, n) + s.inputs * s.outputs, s.outputs, head.momentum);
    if (span.began_here) std::memcpy(head.reference, head.weight, in * out * sizeof(T));
    else call.load_matrix(kReference, bh, head.reference);
    call.load_tokens(kK, b, h, span, s.inputs, head.k), call.load_tokens(kV, b, h, span, s.outputs, head.e);
    call.open_gates(head, bh, span);
    transpose(c, in, head.k, in, head.kt, line);
    head.errors(c, span.began_here, has_momentum, has_base);
    transpose(c, out, head.e, out, errors_transposed, line);

    for (T* each : {dq, dk}) std::memset(each, 0, c * in * sizeof(T));
    std::memset(de, 0, c * out * sizeof(T)), std::memset(d_written, 0, c * line * sizeof(T));
    for (T* each : {d_kept, d_pushed}) std::memset(each, 0, (c + 1) * sizeof(T));
    std::memset(d_last, 0, line * sizeof(T));
    // W' = kept W + pushed S and S' = total S: the gradients of the three factors are inner products with the matrices
    d_kept[c] = dot(in * out, d_weight, head.weight);
    const T d_total = has_momentum ? dot(in * out, d_momentum, head.momentum) : T(0);
    if (has_momentum) d_pushed[c] = dot(in * out, d_weight, head.momentum);
    for (int64_t j = 0; j < in * out; j += kLanes<T>) {
      at(d_weight_before + j) = head.gates.kept[c] * at(d_weight + j);
      at(d_momentum_before + j) = head.gates.pushed[c] * at(d_weight + j) + head.gates.total[c] * at(d_momentum + j);
    }
    of_writes(c, head.gates.written, d_weight, d_written + (c - 1) * line);
    if (has_momentum) of_writes(c, head.gates.momentum, d_momentum, d_last);
    if (reads) {
      call.load_tokens(kQ, b, h, span, s.inputs, head.q), call.load_tokens(kDY, b, h, span, s.outputs, dy);
      if (s.read_token) head.scores(c);
      of_reads(c, has_momentum, has_base);
      call.store_tokens(dq, kDQ, b, h, span, s.inputs);
    }
    of_errors(c, span.began_here, has_momentum, has_base);
    call.store_tokens(dk, kDK, b, h, span, s.inputs);
    for (int64_t j = 0; j < c * out; j += kLanes<T>) at(de + j) = -at(de + j);
    call.store_tokens(de, kDV, b, h, span, s.outputs);
    T* d_log_momentum = call.line(kDLogMomentum, bh);
    head.gates.backward(c, d_kept, d_pushed, d_total, d_written, d_last, call.line(kDRate, bh) + span.first,
                        call.line(kDLogRetention, bh) + span.first, d_log_momentum ? d_log_momentum + span.first : nullptr);
    std::swap(d_weight, d_weight_before), std::swap(d_momentum, d_momentum_before);
    // the reference of a chunk that began here is the weight at its start, so their gradients add up
    if (!span.began_here) return;
    for (int64_t j = 0; j < in * out; j += kLanes<T>) at(d_weight + j) += at(d_reference + j);
    std::memset(d_reference, 0, in * out * sizeof(T));
  }

  void run(int64_t bh) {
    for (T* each : {d_weight, d_momentum, d_reference, d_base}) std::memset(each, 0, in * out * sizeof(T));
    call.load_matrix(kWeightAfter, bh, d_weight), call.load_matrix(kMomentumAfter, bh, d_momentum);
    call.load_matrix(kReferenceAfter, bh, d_reference), call.load_matrix(kBase, bh % s.heads, head.base);
    // if the last chunk is complete, the reference after the call is the weight
    if ((s.place + s.tokens) % s.chunk == 0) {
      for (int64_t j = 0; j < in * out; j += kLanes<T>) at(d_weight + j) += at(d_reference + j);
      std::memset(d_reference, 0, in * out * sizeof(T));
    }
    for (int64_t n = s.chunks() - 1; n >= 0; --n) chunk(bh, n);
    call.store_matrix(d_weight, kDWeight, bh), call.store_matrix(d_momentum, kDMomentum, bh);
    call.store_matrix(d_reference, kDReference, bh), call.store_matrix(d_base, kDBase, bh);
  }
};

// Split the heads of all rows among threads; `work(first, end)`. Heads are independent, and each is computed by one
// thread: results do not depend on the number of threads.
template <class Work>
void deal(const Sizes& s, Work work) {
  const int64_t all = s.rows * s.heads, threads = std::max<int64_t>(1, std::min(s.threads, all));
  std::vector<std::thread> others;
  for (int64_t i = 1; i < threads; ++i) others.emplace_back(work, all * i / threads, all * (i + 1) / threads);
  work(0, all / threads);
  for (auto& each : others) each.join();
}

template <class T>
Call<T> unpack(const Sizes& sizes, void* const* data, const int64_t* strides) {
  Call<T> call{sizes, {}, {}};
  for (int i = 0; i < kNumTensors; ++i) call.views[i] = {static_cast<char*>(data[i]), strides + 3 * i};
  for (int i = 0; i < kNumArrays; ++i) call.arrays[i] = static_cast<T*>(data[kNumTensors + i]);
  return call;
}

template <class T>
void forward_all(const int64_t* sizes, void* const* data, const int64_t* strides) {
  const Sizes& s = *reinterpret_cast<const Sizes*>(sizes);
  const Call<T> call = unpack<T>(s, data, strides);
  deal(s, [&](int64_t first, int64_t end) {
    Head<T> head(s, s.chunk * padded<T>(s.outputs));
    T* y = head.arena.take(s.chunk * head.out);
    for (int64_t bh = first; bh < end; ++bh) forward(call, head, y, bh);
  });
}

template <class T>
void backward_all(const int64_t* sizes, void* const* data, const int64_t* strides) {
  const Sizes& s = *reinterpret_cast<const Sizes*>(sizes);
  const Call<T> call = unpack<T>(s, data, strides);
  deal(s, [&](int64_t first, int64_t end) {
    Backward<T> backward(call);
    for (int64_t bh = first; bh < end; ++bh) backward.run(bh);
  });
}

}  // namespace
}  // namespace nested

extern "C" {
void matrix_forward_float(const int64_t* sizes, void* const* data, const int64_t* strides) {
  nested::forward_all<float>(sizes, data, strides);
}
void matrix_forward_double(const int64_t* sizes, void* const* data, const int64_t* strides) {
  nested::forward_all<double>(sizes, data, strides);
}
void matrix_backward_float(const int64_t* sizes, void* const* data, const int64_t* strides) {
  nested::backward_all<float>(sizes, data, strides);
}
void matrix_backward_double(const int64_t* sizes, void* const* data, const int64_t* strides) {
  nested::backward_all<double>(sizes, data, strides);
}
}
