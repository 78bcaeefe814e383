// Products of small matrices that fit the cache.
//
// Vectors have 64 bytes; the compiler splits them into the registers that the CPU has. Matrices are row-major; rows are
// padded with zeros to whole vectors and aligned, so that no loop has a remainder.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace nested {

template <class T>
constexpr int64_t kLanes = 64 / sizeof(T);

template <class T>
inline int64_t padded(int64_t width) {
  return (width + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

template <class T>
struct Pack {
  typedef T type __attribute__((vector_size(64), may_alias));
};

template <class T>
inline typename Pack<T>::type& at(T* p) {
  return *reinterpret_cast<typename Pack<T>::type*>(p);
}

template <class T>
inline const typename Pack<T>::type& at(const T* p) {
  return *reinterpret_cast<const typename Pack<T>::type*>(p);
}

// c[m, n] += a[m, k] b[k, n] for M rows and N vectors of columns; `kTransposed`: a is stored as a[k, m]. M and N are
// constants, so that the M x N sums stay in registers over the whole loop over k.
template <class T, int M, int N, bool kTransposed>
inline void tile(const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc, int64_t depth) {
  typename Pack<T>::type sum[M][N];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) sum[m][n] = at(c + m * ldc + n * kLanes<T>);
  for (int64_t k = 0; k < depth; ++k) {
    typename Pack<T>::type row[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) row[n] = at(b + k * ldb + n * kLanes<T>);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const T x = kTransposed ? a[k * lda + m] : a[m * lda + k];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sum[m][n] += x * row[n];
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) at(c + m * ldc + n * kLanes<T>) = sum[m][n];
}

template <class T, int N, bool kTransposed>
inline void tile_rows(int64_t rows, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc, int64_t depth) {
  switch (rows) {
    case 6: return tile<T, 6, N, kTransposed>(a, lda, b, ldb, c, ldc, depth);
    case 5: return tile<T, 5, N, kTransposed>(a, lda, b, ldb, c, ldc, depth);
    case 4: return tile<T, 4, N, kTransposed>(a, lda, b, ldb, c, ldc, depth);
    case 3: return tile<T, 3, N, kTransposed>(a, lda, b, ldb, c, ldc, depth);
    case 2: return tile<T, 2, N, kTransposed>(a, lda, b, ldb, c, ldc, depth);
    case 1: return tile<T, 1, N, kTransposed>(a, lda, b, ldb, c, ldc, depth);
  }
}

// six rows of four vectors fill the 32 registers of AVX-512: 24 sums, 4 of b, and one of a
constexpr int64_t kRows = 6;

// Which part of a square matrix is zero or not needed: none; above the diagonal of the factor a; below it, for a
// transposed a; above the diagonal of the result. Blocks that lie in it are skipped.
enum class Shape { kFull, kLowerFactor, kUpperFactor, kLowerResult };

// c += a b; with `kTransposed` a is stored as [k, m]. `n` is a whole number of vectors.
template <bool kTransposed, class T>
inline void add_product(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c,
                        int64_t ldc, Shape shape = Shape::kFull) {
  constexpr int64_t kWide = 4 * kLanes<T>;
  for (int64_t i = 0; i < m; i += kRows) {
    const int64_t rows = std::min(kRows, m - i);
    const int64_t from = shape == Shape::kUpperFactor ? i : 0;
    const int64_t depth = (shape == Shape::kLowerFactor ? std::min(k, i + rows) : k) - from;
    const int64_t columns = shape == Shape::kLowerResult ? std::min(n, padded<T>(i + rows)) : n;
    const T* ai = kTransposed ? a + from * lda + i : a + i * lda + from;
    const T* bk = b + from * ldb;
    int64_t j = 0;
    for (; j + kWide <= columns; j += kWide) tile_rows<T, 4, kTransposed>(rows, ai, lda, bk + j, ldb, c + i * ldc + j, ldc, depth);
    switch ((columns - j) / kLanes<T>) {
      case 3: tile_rows<T, 3, kTransposed>(rows, ai, lda, bk + j, ldb, c + i * ldc + j, ldc, depth); break;
      case 2: tile_rows<T, 2, kTransposed>(rows, ai, lda, bk + j, ldb, c + i * ldc + j, ldc, depth); break;
      case 1: tile_rows<T, 1, kTransposed>(rows, ai, lda, bk + j, ldb, c + i * ldc + j, ldc, depth); break;
    }
  }
}

// to[j, i] = from[i, j]
template <class T>
inline void transpose(int64_t rows, int64_t columns, const T* from, int64_t ld, T* to, int64_t ldt) {
  constexpr int64_t kBlock = 16;
  for (int64_t i = 0; i < rows; i += kBlock)
    for (int64_t j = 0; j < columns; ++j)
      for (int64_t r = i; r < std::min(rows, i + kBlock); ++r) to[j * ldt + r] = from[r * ld + j];
}

// to[r, :] = scale[r] * from[r, :]
template <class T>
inline void scale_rows(int64_t rows, int64_t width, const T* scale, const T* from, T* to) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < width; j += kLanes<T>) at(to + r * width + j) = scale[r] * at(from + r * width + j);
}

// to[r, :] += scale[r] * from[r, :]
template <class T>
inline void add_scaled_rows(int64_t rows, int64_t width, const T* scale, const T* from, T* to) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < width; j += kLanes<T>) at(to + r * width + j) += scale[r] * at(from + r * width + j);
}

template <class T>
inline T total(typename Pack<T>::type x) {
  T sum = 0;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) sum += x[lane];
  return sum;
}

// to[r] += sum_j a[r, j] b[r, j]
template <class T>
inline void add_row_dots(int64_t rows, int64_t width, const T* a, const T* b, T* to) {
  for (int64_t r = 0; r < rows; ++r) {
    typename Pack<T>::type sum = {};
    for (int64_t j = 0; j < width; j += kLanes<T>) sum += at(a + r * width + j) * at(b + r * width + j);
    to[r] += total<T>(sum);
  }
}

// sum over everything of a * b
template <class T>
inline T dot(int64_t size, const T* a, const T* b) {
  typename Pack<T>::type sum = {};
  for (int64_t j = 0; j < size; j += kLanes<T>) sum += at(a + j) * at(b + j);
  return total<T>(sum);
}

}  // namespace nested
