// The forward pass of inference/model.py for processors: every layer in one parallel region, weights packed in panels.
//
// Arithmetic is float32, whatever the weights are kept in (float32, bfloat16 or int8 with a scale per output): a product reads
// each weight once, widens it in registers and multiplies it with up to ROWS tokens. Where the processor multiplies pairs of
// bfloat16 (AVX512_BF16), what weights of bfloat16 or int8 are multiplied with is rounded to bfloat16 too and the sums stay
// float32: twice as many products at once, and with its tiles (AMX) far more. The order in which the numbers of an output are
// added depends on nothing but the output itself, so a token's hidden state is the same to the bit alone, in any batch, in any
// chunking and behind a cached prefix.
//
//   packed weights   [outs / 16][ins][16], bfloat16 in pairs of inputs: [outs / 16][ins / 2][16][2]
//   keys             [blocks][kv_heads][head_dim][16]   a block holds 16 tokens, so q·k of a block is one small product
//   values           [blocks][kv_heads][16][head_dim]
//
// Where pairs are multiplied, a cache of bfloat16 has them too: keys [head_dim / 2][16][2], values [8][head_dim][2].
//
// Written with the compiler's vector types: eight lanes, or sixteen where the processor has AVX-512.

#ifdef __AVX2__
#include <immintrin.h>
#endif
#if defined(__AVX512BF16__) && !defined(WITHOUT_PAIRS)
#define PAIRS
#if defined(__AMX_BF16__) && defined(__linux__) && !defined(WITHOUT_AMX)
#define AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>
#include <sched.h>
#include <type_traits>
#include <vector>

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, ROWS = 12;
#else
constexpr int LANES = 8, ROWS = 6;
#endif
constexpr int PANEL = 16;  // outputs that stand together in packed weights, and tokens of a block
constexpr int PARTS = PANEL / LANES;
constexpr int MAX_RANK = 256;
// From APART tokens for each thread on, each takes its own through the products of a layer, at most AT_ONCE of them at once. Few stay
// in its cache between the products; the faster the products are, the more it costs that each thread reads all weights for them.
#ifdef AMX
constexpr int64_t APART = 64, AT_ONCE = 256;
#else
constexpr int64_t APART = 32, AT_ONCE = 96;
#endif
constexpr int64_t MANY = 16384;  // outputs, as of a head: they lie far away, and there are pieces enough for larger ones
constexpr int64_t OFFSET = 16;   // numbers between rows of a workspace: rows a multiple of 4 KiB apart would share a few places of a cache
constexpr int64_t AT_MOST_AHEAD = 64;  // blocks of keys fetched for what a thread does next
constexpr float HIDDEN_KEY = -1e30f;  // the score of a key that may not be seen

typedef float Floats __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
typedef int8_t Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

struct Brain { uint16_t bits; };  // bfloat16

inline Floats load(const float* at) { return *reinterpret_cast<const Floats*>(at); }
inline void store(float* at, Floats value) { *reinterpret_cast<Floats*>(at) = value; }
inline Floats load(const Brain* at) {
    return reinterpret_cast<Floats>(__builtin_convertvector(*reinterpret_cast<const Halves*>(at), Words) << 16);
}
// GCC 12 takes the generic conversion of bytes apart into single numbers.
#if defined(__AVX512F__)
inline Floats load(const int8_t* at) {
    return Floats(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)))));
}
#elif defined(__AVX2__)
inline Floats load(const int8_t* at) {
    return Floats(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at)))));
}
#else
inline Floats load(const int8_t* at) { return __builtin_convertvector(*reinterpret_cast<const Bytes*>(at), Floats); }
#endif

inline float one(float x) { return x; }
inline float one(Brain x) {
    uint32_t word = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
}
inline void put(float* at, float x) { *at = x; }
inline void put(Brain* at, float x) {  // rounded to nearest, ties to even
    uint32_t word;
    std::memcpy(&word, &x, 4);
    at->bits = x != x ? 0x7fc0 : uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

inline float sum(Floats v) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

inline Floats exponential(Floats x) {  // Cephes' expf: below 2 ulp; NaN stays NaN, beyond either bound it is as at the bound
    const Floats low = Floats{} - 87.3f, high = Floats{} + 88.3f;
    x = x < low ? low : x;
    x = x > high ? high : x;
    Floats n = x * 1.44269504f;
    Ints whole = __builtin_convertvector(n + (n < 0.0f ? x - x - 0.5f : x - x + 0.5f), Ints);
    n = __builtin_convertvector(whole, Floats);
    x = x - n * 0.693359375f + n * 2.12194440e-4f;
    Floats y = x - x + 1.9875691500e-4f;
    y = y * x + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * x * x + x + 1.0f;
    return y * reinterpret_cast<Floats>((whole + 127) << 23);
}

// ---------------------------------------------------------------- threads

// Threads that work together. They take pieces of each phase's work from a counter, so that one that is held up by another
// process holds up nobody, and wait for each other spinning for a short while, then giving way.
struct Team {
    int threads;
    std::atomic<int> arrived{0};
    std::atomic<int> phase{0};
    std::atomic<int64_t> next[2] = {{0}, {0}};
};

// A thread in its team.
struct Member {
    Team& team;
    int phase = 0;

    template <class Work>
    void share(int64_t count, Work work) {
        std::atomic<int64_t>& counter = team.next[phase & 1];
        for (int64_t item; (item = counter.fetch_add(1, std::memory_order_relaxed)) < count;) work(item);
        meet();
    }

    void meet() {
        if (team.arrived.fetch_add(1, std::memory_order_acq_rel) == team.threads - 1) {
            team.arrived.store(0, std::memory_order_relaxed);
            team.next[phase & 1].store(0, std::memory_order_relaxed);  // nobody looks at it until the phase after the next
            team.phase.store(phase + 1, std::memory_order_release);
        } else {
            for (int spins = 0; team.phase.load(std::memory_order_acquire) == phase; spins++) {
                if (spins < 4000) pause();
                else sched_yield();
            }
        }
        phase++;
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
};

// ---------------------------------------------------------------- products

enum Kind : int32_t { F32 = 0, BF16 = 1, INT8 = 2 };
enum Activation : int32_t { SILU = 0, GELU_TANH = 1, GELU = 2 };

// The weights of inputs k and k + 1 for the 16 outputs of a panel.
inline void two(const float* panel, int64_t k, Floats* a, Floats* b) {
    for (int p = 0; p < PARTS; p++) a[p] = load(panel + k * PANEL + p * LANES), b[p] = load(panel + (k + 1) * PANEL + p * LANES);
}
inline void two(const int8_t* panel, int64_t k, Floats* a, Floats* b) {
    for (int p = 0; p < PARTS; p++) a[p] = load(panel + k * PANEL + p * LANES), b[p] = load(panel + (k + 1) * PANEL + p * LANES);
}
inline void two(const Brain* panel, int64_t k, Floats* a, Floats* b) {
    for (int p = 0; p < PARTS; p++) {
        Words pair = *reinterpret_cast<const Words*>(panel + k * PANEL + p * LANES * 2);
        a[p] = reinterpret_cast<Floats>(pair << 16);
        b[p] = reinterpret_cast<Floats>(pair & 0xffff0000u);
    }
}

// R tokens by N panels: result[r][n] = sum over k of x[r][k] * w[n][k], added up in the order of k.
template <class W, int R, int N>
inline void tile(const float* x, int64_t x_stride, const W* w, int64_t panel_stride, int64_t ins, int64_t, Floats (&result)[R][N][PARTS]) {
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++)
            for (int p = 0; p < PARTS; p++) result[r][n][p] = Floats{};
    for (int64_t k = 0; k < ins; k += 2) {
        Floats a[N][PARTS], b[N][PARTS];
        for (int n = 0; n < N; n++) two(w + n * panel_stride, k, a[n], b[n]);
        for (int r = 0; r < R; r++) {
            float first = x[r * x_stride + k], second = x[r * x_stride + k + 1];
            for (int n = 0; n < N; n++)
                for (int p = 0; p < PARTS; p++) result[r][n][p] += a[n][p] * first;
            for (int n = 0; n < N; n++)
                for (int p = 0; p < PARTS; p++) result[r][n][p] += b[n][p] * second;
        }
    }
}

#ifdef PAIRS
// The same weights in bfloat16, input k in the lower half of each lane and k + 1 in the upper. Whole numbers up to 127 are exact.
inline __m512bh pair(const Brain* panel, int64_t k) { return __m512bh(_mm512_loadu_si512(panel + k * PANEL)); }
inline __m512bh pair(const int8_t* panel, int64_t k) {
    Words a = reinterpret_cast<Words>(load(panel + k * PANEL)), b = reinterpret_cast<Words>(load(panel + (k + 1) * PANEL));
    return __m512bh((a >> 16) | b);  // their lower halves are zero
}

// Two neighbours, in all lanes.
inline __m512bh both(const Brain* at) {
    int32_t word;
    std::memcpy(&word, at, 4);
    return __m512bh(_mm512_set1_epi32(word));
}

// 16 numbers rounded to nearest, ties to even.
inline void narrow(Brain* at, Floats x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), __m256i(_mm512_cvtneps_pbh(__m512(x)))); }

template <class W, int R, int N>
inline void tile(const Brain* x, int64_t x_stride, const W* w, int64_t panel_stride, int64_t ins, int64_t ahead, Floats (&result)[R][N][PARTS]) {
    __m512 sums[R][N];
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) sums[r][n] = _mm512_setzero_ps();
    for (int64_t k = 0; k < ins; k += 2) {
        __m512bh weights[N];
        for (int n = 0; n < N; n++) {
            weights[n] = pair(w + n * panel_stride, k);
            __builtin_prefetch(w + (n + ahead) * panel_stride + k * PANEL, 0, 2);
        }
        for (int r = 0; r < R; r++) {
            for (int n = 0; n < N; n++) sums[r][n] = _mm512_dpbf16_ps(sums[r][n], weights[n], both(x + r * x_stride + k));
        }
    }
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) result[r][n][0] = Floats(sums[r][n]);
}
#endif

}  // namespace

extern "C" {

struct Matrix {
    const void* packed;
    const float* scale;  // of each output; null unless int8
    const float* bias;   // of each output, or null
    int64_t outs, ins;   // ins is even
    int32_t kind;
};

struct Norm {
    const float* weight;  // null: there is no such norm
    const float* bias;    // LayerNorm's; null: RMSNorm
};

struct Layer {
    Norm before_attention, after_attention, before_mlp, after_mlp, q, k;
    Matrix qkv, out, up, down;  // up: the gate's outputs stand before up's own where the MLP is gated
    int64_t window;             // positions a token sees, itself included; 0: all
    int32_t rope;               // which row of the frequencies
};

struct Model {
    Matrix head;               // its packed rows are the embedding too, unless there is one
    Matrix embedding;
    const float* positions;    // learned, [context, hidden], or null
    const float* frequencies;  // [ropes][head_dim / 2], or null
    const Layer* layers;
    Norm last;
    int64_t layer_count, hidden, heads, kv_heads, head_dim, inner;
    float norm_eps, attention_scale, embedding_scale;
    int32_t gated, activation;
    int32_t cache_kind;         // F32 or BF16
    void *keys, *values;        // [layers][blocks]…
    int64_t blocks;
};

struct Adapter {
    const void* flat;
    const int32_t* ranks;   // of each projection; 0: not adapted
    const int64_t* starts;  // where its A [rank, in] stands, behind which B transposed [rank, out]
    int32_t kind;           // F32 or BF16
};

struct Step {
    const int64_t *tokens, *positions;    // [n]
    int64_t n, pieces;
    const int64_t *piece_rows, *piece_counts, *piece_blocks;  // first row, tokens, where its blocks begin in `blocks`
    const int64_t* blocks;
    const int32_t* adapter_of;  // [n] index of adapters or -1; null: no adapters
    const Adapter* adapters;
    const int32_t* watched;  // [layers] where in `watched_rows` the layer's queries and keys go, or -1; null: no layer is watched
    float* watched_rows;     // [layers watched][n][queries + keys], as they meet each other
};

}  // extern "C"

namespace {

// A matrix as threads multiply with it.
struct Product : Matrix {
    int64_t ahead;  // how many panels behind those that it reads a thread finds what it reads next, and fetches it
};

inline void finish(const Matrix& m, float* y, int64_t out, const Floats* result, bool add) {
    int64_t there = m.outs - out < PANEL ? m.outs - out : PANEL;
    for (int p = 0; p < PARTS; p++) {
        Floats value = result[p];
        int64_t at = out + p * LANES;
        if (p * LANES + LANES <= there) {
            if (m.scale) value *= load(m.scale + at);
            if (m.bias) value += load(m.bias + at);
            store(y + at, add ? load(y + at) + value : value);
        } else {
            for (int64_t i = 0; i < LANES && p * LANES + i < there; i++) {
                float number = value[i] * (m.scale ? m.scale[at + i] : 1.0f) + (m.bias ? m.bias[at + i] : 0.0f);
                y[at + i] = add ? y[at + i] + number : number;
            }
        }
    }
}

template <class W, class X, int R, int N>
void rows_by_panels(const Product& m, int64_t panel, const X* x, int64_t xs, float* y, int64_t ys, bool add) {
    Floats result[R][N][PARTS];
    const int64_t panel_stride = m.ins * PANEL;
    if (m.outs >= MANY)
        for (int r = 0; r < R; r++)
            for (int n = 0; n < N; n++) __builtin_prefetch(y + r * ys + (panel + n) * PANEL, 1);
    tile<W, R, N>(x, xs, static_cast<const W*>(m.packed) + panel * panel_stride, panel_stride, m.ins, m.ahead, result);
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) finish(m, y + r * ys, (panel + n) * PANEL, result[r][n], add);
}

template <class W, class X, int R>
void some_rows(const Product& m, int64_t first, int64_t last, const X* x, int64_t xs, float* y, int64_t ys, bool add) {
    constexpr int most = std::is_same_v<X, float> ? ROWS : 2 * ROWS, N = R * 4 <= most ? 4 : R * 2 <= most ? 2 : 1;  // as registers allow
    int64_t panel = first;
    for (; panel + N <= last; panel += N) rows_by_panels<W, X, R, N>(m, panel, x, xs, y, ys, add);
    for (; panel < last; panel++) rows_by_panels<W, X, R, 1>(m, panel, x, xs, y, ys, add);
}

template <class W, class X, int R>
void any_rows(int64_t n, const Product& m, int64_t first, int64_t last, const X* x, int64_t xs, float* y, int64_t ys, bool add) {
    if constexpr (R > 0) {
        if (n == R) some_rows<W, X, R>(m, first, last, x, xs, y, ys, add);
        else any_rows<W, X, R - 1>(n, m, first, last, x, xs, y, ys, add);
    }
}

// Panels with their weights in X, for many tokens: converted once rather than by each tile of them.
template <class W>
const float* widened(const W* panels, int64_t pairs, const float*) {
    thread_local std::vector<float> wide;
    wide.resize(pairs * 2 * PANEL);
    for (int64_t k = 0; k < 2 * pairs; k += 2) {
        Floats a[PARTS], b[PARTS];
        two(panels, k, a, b);
        for (int p = 0; p < PARTS; p++) {
            store(&wide[k * PANEL + p * LANES], a[p]);
            store(&wide[(k + 1) * PANEL + p * LANES], b[p]);
        }
    }
    return wide.data();
}
#ifdef PAIRS
template <class W>
const Brain* widened(const W* panels, int64_t pairs, const Brain*) {
    thread_local std::vector<Brain> wide;
    wide.resize(pairs * 2 * PANEL);
    for (int64_t k = 0; k < 2 * pairs; k += 2) _mm512_storeu_si512(&wide[k * PANEL], __m512i(pair(panels, k)));
    return wide.data();
}
#endif

template <class W, class X>
void tiles(const Product& m, int64_t first, int64_t last, const X* x, int64_t xs, float* y, int64_t ys, int64_t n, bool add) {
    const int64_t count = (n + ROWS - 1) / ROWS;
    for (int64_t t = 0, row = 0; t < count; t++) {  // of nearly equal height
        int64_t height = (n - row + count - t - 1) / (count - t);
        any_rows<W, X, ROWS>(height, m, first, last, x + row * xs, xs, y + row * ys, ys, add);
        row += height;
    }
}

template <class W, class X>
void panels(const Product& m, int64_t first, int64_t last, const X* x, int64_t xs, float* y, int64_t ys, int64_t n, bool add) {
    if (n <= 2 * ROWS) return tiles<W, X>(m, first, last, x, xs, y, ys, n, add);
    for (int64_t panel = first, next; panel < last; panel = next) {
        next = panel + 2 < last ? panel + 2 : last;
        if constexpr (std::is_same_v<W, X>) {
            tiles<W, X>(m, panel, next, x, xs, y, ys, n, add);
        } else {
            Product wide = m;
            const int64_t before = panel * m.ins * PANEL;
            wide.packed = widened(static_cast<const W*>(m.packed) + before, (next - panel) * m.ins / 2, x) - before;
            tiles<X, X>(wide, panel, next, x, xs, y, ys, n, add);
        }
    }
}

// What weights that are not float32 are multiplied with: x [n, ins], where the processor wants it in bfloat16 rounded, rows `stride` apart.
#ifdef PAIRS
void round_all(const float* x, Brain* y, int64_t count) {
    int64_t k = 0;
    for (; k + LANES <= count; k += LANES) narrow(y + k, load(x + k));
    for (; k < count; k++) put(y + k, x[k]);
}

const Brain* rounded(const float* x, int64_t& stride, int64_t n, int64_t ins) {
    thread_local std::vector<Brain> numbers;  // each thread's own: to round once more costs less than to wait for each other
    const int64_t apart = ins + OFFSET * 2;
    numbers.resize(n * apart);
    for (int64_t row = 0; row < n; row++) round_all(x + row * stride, &numbers[row * apart], ins);
    stride = apart;
    return numbers.data();
}
#else
const float* rounded(const float* x, int64_t&, int64_t, int64_t) { return x; }
#endif

#ifdef AMX
// Matrices of weights in bfloat16 by the processor's tiles (AMX): 16 tokens by 16 outputs by 32 inputs in one instruction.
constexpr int TILE = 16;            // rows of a tile
constexpr int64_t TILE_INS = 32;    // inputs of a row of x, or of all rows of a panel, that a tile holds
constexpr int64_t TILE_BYTES = 64;  // of a row

// Whether this process may use tiles; Linux wants to be asked.
bool amx() {
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    static const bool granted = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
    return granted;
}

struct alignas(64) TileConfig {  // Intel's palette 1: eight tiles of at most 16 rows of 64 bytes
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16];
    uint8_t rows[16];
    constexpr TileConfig(const uint16_t (&bytes)[8], const uint8_t (&counts)[8]) : row_bytes{}, rows{} {
        for (int t = 0; t < 8; t++) row_bytes[t] = bytes[t], rows[t] = counts[t];
    }
};
// Not a local variable: GCC's _tile_loadconfig says that it reads but the first 8 bytes.
const TileConfig PRODUCT_TILES{{TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES},
                               {TILE, TILE, TILE, TILE, TILE, TILE, TILE, TILE}};

// A thread's tiles: 0 to 3 are sums, 4 and 5 tokens, 6 and 7 weights. Given back, so that switches of threads need not save them.
struct Tiles {
    Tiles() { if (amx()) _tile_loadconfig(&PRODUCT_TILES); }
    ~Tiles() { if (amx()) _tile_release(); }
};

// Room for so many numbers from the beginning of a line on; their values are those of before or none.
Brain* room(std::vector<Brain>& numbers, int64_t count) {
    if (int64_t(numbers.size()) < count + TILE_INS) numbers.resize(count + TILE_INS);
    return reinterpret_cast<Brain*>((reinterpret_cast<uintptr_t>(numbers.data()) + 63) / 64 * 64);
}

// x [n, ins] rounded to bfloat16 in the order in which tiles are read: [n / 16][ins / 32][16][32]. What stands for tokens that
// are not there is anything.
const Brain* in_tiles(const float* x, int64_t xs, int64_t n, int64_t ins) {
    thread_local std::vector<Brain> numbers;
    const int64_t across = (ins + TILE_INS - 1) / TILE_INS;
    Brain* tiles = room(numbers, (n + TILE - 1) / TILE * across * TILE * TILE_INS);
    for (int64_t row = 0; row < n; row++) {
        Brain* mine = tiles + (row / TILE * across * TILE + row % TILE) * TILE_INS;
        const float* its = x + row * xs;
        for (int64_t k = 0; k < ins; k += TILE_INS, mine += TILE * TILE_INS) round_all(its + k, mine, ins - k < TILE_INS ? ins - k : TILE_INS);
    }
    return tiles;
}

// The results of one panel for some tokens: sums [rows][16].
void finish_panel(const Matrix& m, int64_t panel, const float (*sums)[PANEL], int64_t rows, float* y, int64_t ys, bool add) {
    const int64_t out = panel * PANEL;
    if (out + PANEL > m.outs) {
        for (int64_t r = 0; r < rows; r++) {
            const Floats result[PARTS] = {load(sums[r])};
            finish(m, y + r * ys, out, result, add);
        }
        return;
    }
    for (int64_t r = 0; r < rows; r++) {
        Floats value = load(sums[r]);
        if (m.bias) value += load(m.bias + out);
        float* at = y + r * ys + out;
        store(at, add ? load(at) + value : value);
    }
}

// Inputs behind the last whole tile are added pair by pair. x: that of 16 tokens, of which `rows` are wanted.
template <int N>
void amx_finish(const Product& m, int64_t panel, const Brain* x, float (&sums)[N][TILE][PANEL], int64_t rows, float* y, int64_t ys, bool add) {
    const int64_t whole = m.ins / TILE_INS * TILE_INS;
    const Brain *w = static_cast<const Brain*>(m.packed) + panel * m.ins * PANEL, *left = x + whole * TILE;
    for (int64_t n = 0; n < N; n++) {
        for (int64_t r = 0; r < rows && whole < m.ins; r++) {
            __m512 sum = _mm512_load_ps(sums[n][r]);
            for (int64_t k = whole; k < m.ins; k += 2)
                sum = _mm512_dpbf16_ps(sum, pair(w + n * m.ins * PANEL, k), both(left + r * TILE_INS + k - whole));
            _mm512_store_ps(sums[n][r], sum);
        }
        finish_panel(m, panel + n, sums[n], rows, y, ys, add);
    }
}

inline void fetch_tile(const Brain* at) {
    for (int64_t line = 0; line < TILE; line++) __builtin_prefetch(at + line * TILE_INS, 0, 2);
}

// At most 16 tokens by N panels, which are fetched if nobody has read them yet.
template <int N>
void amx_few(const Product& m, int64_t panel, const Brain* x, int64_t rows, bool first, float* y, int64_t ys, bool add) {
    static_assert(N == 1 || N == 2 || N == 4);
    const int64_t stride = m.ins * PANEL, whole = m.ins / TILE_INS * TILE_INS;
    const int64_t x_bytes = rows == 1 ? 0 : TILE_BYTES;  // a single token stands for all of its tile
    const Brain* w = static_cast<const Brain*>(m.packed) + panel * stride;
    std::atomic_signal_fence(std::memory_order_seq_cst);  // GCC's _tile_loadd does not say that it reads memory
    _tile_zero(0);
    if (N > 1) _tile_zero(1);
    if (N > 2) _tile_zero(2);
    if (N > 2) _tile_zero(3);
    for (int64_t k = 0; k < whole; k += TILE_INS) {
        const Brain* here = w + k * PANEL;
        _tile_loadd(4, x + k * TILE, x_bytes);
        _tile_loadd(5, here, TILE_BYTES);
        _tile_dpbf16ps(0, 4, 5);
        if (N > 1) _tile_loadd(6, here + stride, TILE_BYTES);
        if (N > 1) _tile_dpbf16ps(1, 4, 6);
        if (N > 2) _tile_loadd(7, here + 2 * stride, TILE_BYTES);
        if (N > 2) _tile_dpbf16ps(2, 4, 7);
        if (N > 2) _tile_loadd(5, here + 3 * stride, TILE_BYTES);
        if (N > 2) _tile_dpbf16ps(3, 4, 5);
        for (int64_t n = 0; first && n < N; n++) fetch_tile(here + (n + m.ahead) * stride);
    }
    alignas(64) float sums[N][TILE][PANEL];
    _tile_stored(0, sums[0], TILE_BYTES);
    if (N > 1) _tile_stored(1, sums[1 % N], TILE_BYTES);
    if (N > 2) _tile_stored(2, sums[2 % N], TILE_BYTES);
    if (N > 2) _tile_stored(3, sums[3 % N], TILE_BYTES);
    amx_finish<N>(m, panel, x, sums, rows, y, ys, add);
}

// 17 to 32 tokens by N panels.
template <int N>
void amx_many(const Product& m, int64_t panel, const Brain* x, int64_t rows, bool first, bool last, float* y, int64_t ys, bool add) {
    static_assert(N == 1 || N == 2);
    const int64_t stride = m.ins * PANEL, whole = m.ins / TILE_INS * TILE_INS;
    const Brain *w = static_cast<const Brain*>(m.packed) + panel * stride, *others = x + (m.ins + TILE_INS - 1) / TILE_INS * TILE * TILE_INS;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    _tile_zero(0);
    _tile_zero(2);
    if (N > 1) _tile_zero(1);
    if (N > 1) _tile_zero(3);
    for (int64_t k = 0; k < whole; k += TILE_INS) {
        const Brain* here = w + k * PANEL;
        _tile_loadd(6, here, TILE_BYTES);
        if (N > 1) _tile_loadd(7, here + stride, TILE_BYTES);
        if (first && last) {
            _tile_loadd(4, x + k * TILE, TILE_BYTES);
            _tile_loadd(5, others + k * TILE, TILE_BYTES);
        } else {  // more tokens than the first cache holds: they leave it to the weights
            _tile_stream_loadd(4, x + k * TILE, TILE_BYTES);
            _tile_stream_loadd(5, others + k * TILE, TILE_BYTES);
        }
        for (int64_t n = 0; first && n < N; n++) fetch_tile(here + (n + m.ahead) * stride);
        _tile_dpbf16ps(0, 4, 6);
        if (N > 1) _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        if (N > 1) _tile_dpbf16ps(3, 5, 7);
    }
    alignas(64) float sums[N][TILE][PANEL], more[N][TILE][PANEL];
    _tile_stored(0, sums[0], TILE_BYTES);
    _tile_stored(2, more[0], TILE_BYTES);
    if (N > 1) _tile_stored(1, sums[N - 1], TILE_BYTES);
    if (N > 1) _tile_stored(3, more[N - 1], TILE_BYTES);
    amx_finish<N>(m, panel, x, sums, TILE, y, ys, add);
    amx_finish<N>(m, panel, others, more, rows - TILE, y + TILE * ys, ys, add);
}

template <int N>
void amx_some_panels(const Product& m, int64_t panel, const Brain* x, float* y, int64_t ys, int64_t n, bool add) {
    const int64_t x_stride = (m.ins + TILE_INS - 1) / TILE_INS * TILE_INS;  // of a token, as far as whole tiles go
    for (int64_t row = 0; row < n; row += 2 * TILE) {
        const int64_t rows = n - row < 2 * TILE ? n - row : 2 * TILE;
        const bool first = row == 0, last = row + rows == n;
        if (rows > TILE) amx_many<N>(m, panel, x + row * x_stride, rows, first, last, y + row * ys, ys, add);
        else amx_few<N>(m, panel, x + row * x_stride, rows, first, y + row * ys, ys, add);
    }
}

void amx_panels(const Product& m, int64_t first, int64_t last, const Brain* x, float* y, int64_t ys, int64_t n, bool add) {
    int64_t panel = first;
    for (; n <= TILE && panel + 4 <= last; panel += 4) amx_few<4>(m, panel, x, n, true, y, ys, add);
    for (; panel + 2 <= last; panel += 2) amx_some_panels<2>(m, panel, x, y, ys, n, add);
    if (panel < last) amx_some_panels<1>(m, panel, x, y, ys, n, add);
}
#else
struct Tiles {};
#endif

// y [n, outs] = x [n, ins] times the matrix, or that added to y.
void product(Member& member, const Matrix& matrix, const float* x, int64_t xs, float* y, int64_t ys, int64_t n, bool add) {
    if (!n) return;  // a tile of tokens would be read all the same
    const int64_t all = (matrix.outs + PANEL - 1) / PANEL, chunk = matrix.outs >= MANY ? 32 : n * 2 <= ROWS ? 4 : 2;  // panels
    const Product m{matrix, chunk > 4 ? 4 : chunk * member.team.threads};
    const int64_t items = (all + chunk - 1) / chunk;
    const auto some = [&](auto work) {
        member.share(items, [&](int64_t item) { work(item * chunk, (item + 1) * chunk < all ? (item + 1) * chunk : all); });
    };
    if (m.kind == F32) return some([&](int64_t first, int64_t last) { panels<float>(m, first, last, x, xs, y, ys, n, add); });
#ifdef AMX
    if (m.kind == BF16 && amx()) {
        const Brain* tiles = in_tiles(x, xs, n, m.ins);
        return some([&](int64_t first, int64_t last) { amx_panels(m, first, last, tiles, y, ys, n, add); });
    }
#endif
    const auto* narrow = rounded(x, xs, n, m.ins);
    if (m.kind == BF16) some([&](int64_t first, int64_t last) { panels<Brain>(m, first, last, narrow, xs, y, ys, n, add); });
    else some([&](int64_t first, int64_t last) { panels<int8_t>(m, first, last, narrow, xs, y, ys, n, add); });
}

// ---------------------------------------------------------------- rows

float total(int64_t size, const float* x, float less, bool squared) {  // of (x - less), or of its squares
    Floats lanes = {};
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) {
        Floats v = load(x + i) - less;
        lanes += squared ? v * v : v;
    }
    float all = sum(lanes);
    for (; i < size; i++) all += squared ? (x[i] - less) * (x[i] - less) : x[i] - less;
    return all;
}

void normalise(const Norm& norm, const float* x, float* y, int64_t size, float eps, bool add) {
    const float mean = norm.bias ? total(size, x, 0, false) / float(size) : 0.0f;
    const float scale = 1.0f / std::sqrt(total(size, x, mean, true) / float(size) + eps);
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) {
        Floats value = (load(x + i) - mean) * scale * load(norm.weight + i);
        if (norm.bias) value += load(norm.bias + i);
        store(y + i, add ? load(y + i) + value : value);
    }
    for (; i < size; i++) {
        float value = (x[i] - mean) * scale * norm.weight[i] + (norm.bias ? norm.bias[i] : 0.0f);
        y[i] = add ? y[i] + value : value;
    }
}

void embed(const Matrix& m, int64_t token, float scale, float* y) {
    const int64_t panel = token / PANEL * m.ins * PANEL, lane = token % PANEL;
    for (int64_t k = 0; k < m.ins; k++) {
        switch (m.kind) {
            case F32: y[k] = static_cast<const float*>(m.packed)[panel + k * PANEL + lane]; break;
            case BF16: y[k] = one(static_cast<const Brain*>(m.packed)[panel + (k & ~1) * PANEL + lane * 2 + (k & 1)]); break;
            case INT8: y[k] = static_cast<const int8_t*>(m.packed)[panel + k * PANEL + lane] * m.scale[token]; break;
        }
        y[k] *= scale;
    }
}

void rotate(float* head, const float* cosine, const float* sine, int64_t half) {
    for (int64_t i = 0; i < half; i++) {
        float a = head[i], b = head[i + half];
        head[i] = a * cosine[i] - b * sine[i];
        head[i + half] = b * cosine[i] + a * sine[i];
    }
}

inline Floats activation(int32_t kind, Floats x) {
    if (kind == SILU) return x / (exponential(-x) + 1.0f);
    if (kind == GELU_TANH) return x / (exponential(-1.5957691216f * (x + 0.044715f * x * x * x)) + 1.0f);
    for (int i = 0; i < LANES; i++) x[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * 0.7071067812f));
    return x;
}

void activate(const Model& m, float* inner) {  // gate, up -> activation(gate) * up, in the place of the gate
    for (int64_t i = 0; i < m.inner; i += LANES) {
        Floats y = activation(m.activation, load(inner + i));
        store(inner + i, m.gated ? y * load(inner + m.inner + i) : y);
    }
}

// ---------------------------------------------------------------- attention

// Asks for memory that is read soon: blocks lie anywhere, so the processor cannot guess the next one. It comes into the second
// cache: so many lines at once as keep the memory busy are more than the first one waits for.
template <class C>
inline void fetch(const C* at, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / int64_t(sizeof(C))) __builtin_prefetch(at + i, 0, 2);
}

inline int64_t first_seen(int64_t position, int64_t window) { return window && position >= window ? position - window + 1 : 0; }

// The keys that this thread looks at next.
template <class C>
struct Next {
    const C* keys = nullptr;
    const int64_t* blocks = nullptr;
    int64_t count = 0;  // of blocks
};

// The scores of Q queries with the keys of B blocks, those from number b of the piece on.
template <int Q, int B, class C>
inline void score(const Model& m, const C* keys, const int64_t* blocks, int64_t b, const float* const* query, float* scores, int64_t width) {
    const int64_t d = m.head_dim, block_stride = m.kv_heads * d * PANEL;
    const C* block[B];
    for (int n = 0; n < B; n++) block[n] = keys + blocks[b + n] * block_stride;
    Floats result[B][Q][PARTS] = {};
    for (int64_t k = 0; k < d; k++)
        for (int n = 0; n < B; n++)
            for (int p = 0; p < PARTS; p++) {
                Floats key = load(block[n] + k * PANEL + p * LANES);
                for (int r = 0; r < Q; r++) result[n][r][p] += key * query[r][k];
            }
    for (int n = 0; n < B; n++)
        for (int r = 0; r < Q; r++)
            for (int p = 0; p < PARTS; p++) store(scores + r * width + n * PANEL + p * LANES, result[n][r][p]);
}

// N panels of columns of what Q queries see, by their shares of each key, which stand `width` apart.
template <int Q, int N, class C>
inline void gather(const Model& m, const C* values, const int64_t* blocks, int64_t begin, int64_t end, int64_t column, const float* shares,
                   int64_t width, const float* scale, const Next<C>& next, float* const* out) {
    const int64_t d = m.head_dim, block_stride = m.kv_heads * d * PANEL;
    Floats result[Q][N][PARTS] = {};
    for (int64_t b = begin; b < end; b++) {
        const C* block = values + blocks[b] * block_stride + column;
        const float* mine = shares + (b - begin) * PANEL;
        if (!column && b - begin < next.count) fetch(next.keys + next.blocks[b - begin] * block_stride, d * PANEL);
        for (int64_t i = 0; i < PANEL; i++) {
            Floats value[N][PARTS];
            for (int n = 0; n < N; n++)
                for (int p = 0; p < PARTS; p++) value[n][p] = load(block + i * d + n * PANEL + p * LANES);
            for (int r = 0; r < Q; r++)
                for (int n = 0; n < N; n++)
                    for (int p = 0; p < PARTS; p++) result[r][n][p] += value[n][p] * mine[r * width + i];
        }
    }
    for (int r = 0; r < Q; r++)
        for (int n = 0; n < N; n++)
            for (int p = 0; p < PARTS; p++) store(out[r] + column + n * PANEL + p * LANES, result[r][n][p] * scale[r]);
}

#ifdef PAIRS
template <int Q, int B>
inline void score(const Model& m, const Brain* keys, const int64_t* blocks, int64_t b, const Brain* const* query, float* scores, int64_t width) {
    const int64_t d = m.head_dim, block_stride = m.kv_heads * d * PANEL;
    const Brain* block[B];
    for (int n = 0; n < B; n++) block[n] = keys + blocks[b + n] * block_stride;
    __m512 result[B][Q];
    for (int n = 0; n < B; n++)
        for (int r = 0; r < Q; r++) result[n][r] = _mm512_setzero_ps();
    for (int64_t k = 0; k < d; k += 2) {
        __m512bh key[B];
        for (int n = 0; n < B; n++) key[n] = pair(block[n], k);
        for (int r = 0; r < Q; r++)
            for (int n = 0; n < B; n++) result[n][r] = _mm512_dpbf16_ps(result[n][r], key[n], both(query[r] + k));
    }
    for (int n = 0; n < B; n++)
        for (int r = 0; r < Q; r++) store(scores + r * width + n * PANEL, Floats(result[n][r]));
}

template <int Q, int N>
inline void gather(const Model& m, const Brain* values, const int64_t* blocks, int64_t begin, int64_t end, int64_t column, const Brain* shares,
                   int64_t width, const float* scale, const Next<Brain>& next, float* const* out) {
    const int64_t d = m.head_dim, block_stride = m.kv_heads * d * PANEL;
    __m512 result[Q][N];
    for (int r = 0; r < Q; r++)
        for (int n = 0; n < N; n++) result[r][n] = _mm512_setzero_ps();
    for (int64_t b = begin; b < end; b++) {
        const Brain* block = values + blocks[b] * block_stride + column * 2;
        const Brain* mine = shares + (b - begin) * PANEL;
        if (!column && b - begin < next.count) fetch(next.keys + next.blocks[b - begin] * block_stride, d * PANEL);
        for (int64_t i = 0; i < PANEL; i += 2) {
            __m512bh value[N];
            for (int n = 0; n < N; n++) value[n] = __m512bh(_mm512_loadu_si512(block + i * d + n * PANEL * 2));
            for (int r = 0; r < Q; r++)
                for (int n = 0; n < N; n++) result[r][n] = _mm512_dpbf16_ps(result[r][n], value[n], both(mine + r * width + i));
        }
    }
    for (int r = 0; r < Q; r++)
        for (int n = 0; n < N; n++) store(out[r] + column + n * PANEL, Floats(result[r][n]) * scale[r]);
}
#endif

#ifdef PAIRS
template <class C> constexpr bool PAIRED = std::is_same_v<C, Brain>;  // whether the cache's numbers are multiplied in pairs
inline void keep(Brain* at, Floats shares) { narrow(at, shares); }
#else
template <class C> constexpr bool PAIRED = false;
#endif
inline void keep(float* at, Floats shares) { store(at, shares); }

template <class C> using Share = std::conditional_t<PAIRED<C>, C, float>;

// Queries as the cache's numbers are multiplied with: as they are, or rounded.
template <int Q>
void ask(const float* const* query, int64_t, const float** asked) { std::memcpy(asked, query, Q * sizeof *asked); }
#ifdef PAIRS
template <int Q>
void ask(const float* const* query, int64_t d, const Brain** asked) {
    thread_local std::vector<Brain> numbers;
    numbers.resize(Q * d);
    for (int r = 0; r < Q; r++) round_all(query[r], &numbers[r * d], d), asked[r] = &numbers[r * d];
}
#endif

// The shares of a query's keys in what it sees, times the number returned. `mine`: its scores with the keys of blocks [begin, end),
// in whose place the shares may stand; it sees the keys from `first` to `at`.
template <class S>
float share_out(const Model& m, float* mine, int64_t first, int64_t at, int64_t begin, int64_t end, S* shares) {
    const int64_t width = (end - begin) * PANEL;
    for (int64_t key = begin * PANEL; key < first; key++) mine[key - begin * PANEL] = HIDDEN_KEY;
    for (int64_t key = at + 1; key < end * PANEL; key++) mine[key - begin * PANEL] = HIDDEN_KEY;
    Floats most = load(mine), lanes = {};
    for (int64_t i = LANES; i < width; i += LANES) most = load(mine + i) > most ? load(mine + i) : most;
    float best = most[0];
    for (int i = 1; i < LANES; i++) best = most[i] > best ? most[i] : best;
    for (int64_t i = 0; i < width; i += LANES) {
        Floats score = load(mine + i), e = exponential((score - best) * m.attention_scale);
        e = score == HIDDEN_KEY ? Floats{} : e;
        keep(shares + i, e);
        lanes += e;
    }
    return 1.0f / sum(lanes);
}

// softmax(q Kᵀ) V for Q queries over one key head of one piece. `at`: their positions. scores: [Q][width].
template <class C, int Q>
void attend(const Model& m, int64_t window, const C* keys, const C* values, const int64_t* blocks, const float* const* query,
            float* const* out, const int64_t* at, const Next<C>& following, float* scores) {
    constexpr int most = PAIRED<C> ? 2 * ROWS : ROWS, B = Q * 2 <= most ? 2 : 1, N = Q * 4 <= most ? 4 : B;  // so many at once as registers allow
    const int64_t d = m.head_dim, block_stride = m.kv_heads * d * PANEL;
    int64_t first[Q];
    for (int r = 0; r < Q; r++) first[r] = first_seen(at[r], window);
    const int64_t begin = first[0] / PANEL, end = at[Q - 1] / PANEL + 1, width = (end - begin) * PANEL;  // positions only grow
    const Share<C>* asked[Q];
    ask<Q>(query, d, asked);
    for (int64_t b = begin; b < end;) {
        const int64_t done = b + B <= end ? B : 1;
        for (int64_t next = b + done; next < end && next < b + done + B; next++) fetch(keys + blocks[next] * block_stride, d * PANEL);
        for (int64_t own = b; own < b + done; own++) fetch(values + blocks[own] * block_stride, d * PANEL);
        if (done == B) score<Q, B>(m, keys, blocks, b, asked, scores + (b - begin) * PANEL, width);
        else score<Q, 1>(m, keys, blocks, b, asked, scores + (b - begin) * PANEL, width);
        b += done;
    }
    Share<C>* shares = reinterpret_cast<Share<C>*>(scores);  // in the scores' place: each stands where no later score is
    float scale[Q];
    for (int r = 0; r < Q; r++) scale[r] = share_out(m, scores + r * width, first[r], at[r], begin, end, shares + r * width);
    int64_t column = 0;
    for (; column + N * PANEL <= d; column += N * PANEL) gather<Q, N>(m, values, blocks, begin, end, column, shares, width, scale, following, out);
    for (; column < d; column += PANEL) gather<Q, 1>(m, values, blocks, begin, end, column, shares, width, scale, following, out);
}

#ifdef AMX
// The tiles of what is seen: 0 to 3 are sums, 4 is shares of the 16 keys of a block, 6 their values in pairs.
const TileConfig VALUE_TILES{{TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES / 2, 0, TILE_BYTES, 0},
                             {TILE, TILE, TILE, TILE, TILE, 0, PANEL / 2, 0}};

// Whether attention is computed by tiles; it is either for all tokens or for none.
inline bool amx_attends(const Model& m) { return amx() && m.cache_kind == BF16 && m.head_dim % TILE_INS == 0; }

// The scores of 16 queries [16][d] with the keys of B blocks, those from number b of the piece on.
template <int B>
inline void amx_score(const Model& m, const Brain* keys, const int64_t* blocks, int64_t b, const Brain* asked, float* scores, int64_t width) {
    const int64_t d = m.head_dim, block_stride = m.kv_heads * d * PANEL;
    _tile_zero(0);
    if (B > 1) _tile_zero(1);
    for (int64_t k = 0; k < d; k += TILE_INS) {
        _tile_loadd(4, asked + k, d * 2);
        _tile_loadd(6, keys + blocks[b] * block_stride + k * PANEL, TILE_BYTES);
        if (B > 1) _tile_loadd(7, keys + blocks[b + 1] * block_stride + k * PANEL, TILE_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        if (B > 1) _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, scores, width * 4);
    if (B > 1) _tile_stored(1, scores + PANEL, width * 4);
}

// N panels of columns of what 16 queries see, by their shares of each key, which stand `width` apart: seen [N][16][16].
template <int N>
inline void amx_gather(const Model& m, const Brain* values, const int64_t* blocks, int64_t begin, int64_t end, int64_t column, const Brain* shares,
                       int64_t width, const Next<Brain>& next, float (*seen)[TILE][PANEL]) {
    static_assert(N == 2 || N == 4);
    const int64_t d = m.head_dim, block_stride = m.kv_heads * d * PANEL;
    _tile_zero(0);
    _tile_zero(1);
    if (N > 2) _tile_zero(2);
    if (N > 2) _tile_zero(3);
    for (int64_t b = begin; b < end; b++) {
        const Brain* block = values + blocks[b] * block_stride + column * 2;
        if (!column && b - begin < next.count) fetch(next.keys + next.blocks[b - begin] * block_stride, d * PANEL);
        _tile_loadd(4, shares + (b - begin) * PANEL, width * 2);
        _tile_loadd(6, block, d * 4);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(6, block + PANEL * 2, d * 4);
        _tile_dpbf16ps(1, 4, 6);
        if (N > 2) {
            _tile_loadd(6, block + 2 * PANEL * 2, d * 4);
            _tile_dpbf16ps(2, 4, 6);
            _tile_loadd(6, block + 3 * PANEL * 2, d * 4);
            _tile_dpbf16ps(3, 4, 6);
        }
    }
    _tile_stored(0, seen[0], TILE_BYTES);
    _tile_stored(1, seen[1], TILE_BYTES);
    if (N > 2) _tile_stored(2, seen[N - 2], TILE_BYTES);
    if (N > 2) _tile_stored(3, seen[N - 1], TILE_BYTES);
}

// As `attend`, for at most 16 queries: what is computed for those that are not there is nobody's. scores: [16][width].
void amx_attend(int64_t queries, const Model& m, int64_t window, const Brain* keys, const Brain* values, const int64_t* blocks,
                const float* const* query, float* const* out, const int64_t* at, const Next<Brain>& following, float* scores) {
    const int64_t d = m.head_dim, block_stride = m.kv_heads * d * PANEL;
    const int64_t begin = first_seen(at[0], window) / PANEL, end = at[queries - 1] / PANEL + 1, width = (end - begin) * PANEL;
    thread_local std::vector<Brain> numbers;
    Brain* asked = room(numbers, TILE * d);
    for (int64_t r = 0; r < queries; r++) round_all(query[r], asked + r * d, d);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // as for products
    for (int64_t b = begin, done; b < end; b += done) {
        done = b + 2 <= end ? 2 : 1;
        for (int64_t next = b + done; next < end && next < b + done + 2; next++) fetch(keys + blocks[next] * block_stride, d * PANEL);
        for (int64_t own = b; own < b + done; own++) fetch(values + blocks[own] * block_stride, d * PANEL);
        if (done == 2) amx_score<2>(m, keys, blocks, b, asked, scores + (b - begin) * PANEL, width);
        else amx_score<1>(m, keys, blocks, b, asked, scores + (b - begin) * PANEL, width);
    }
    Brain* shares = reinterpret_cast<Brain*>(scores);
    float scale[TILE];
    for (int64_t r = 0; r < queries; r++)
        scale[r] = share_out(m, scores + r * width, first_seen(at[r], window), at[r], begin, end, shares + r * width);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    _tile_loadconfig(&VALUE_TILES);
    alignas(64) float seen[4][TILE][PANEL];
    for (int64_t column = 0, panels; column < d; column += panels * PANEL) {
        panels = column + 4 * PANEL <= d ? 4 : 2;
        if (panels == 4) amx_gather<4>(m, values, blocks, begin, end, column, shares, width, following, seen);
        else amx_gather<2>(m, values, blocks, begin, end, column, shares, width, following, seen);
        for (int64_t r = 0; r < queries; r++)
            for (int64_t n = 0; n < panels; n++) store(out[r] + column + n * PANEL, load(seen[n][r]) * scale[r]);
    }
    _tile_loadconfig(&PRODUCT_TILES);
}
#endif

// How many queries one key head answers at once.
#ifdef AMX
constexpr int64_t QUERIES = TILE;  // at most
inline int64_t queries_at_once(const Model& m) { return amx_attends(m) ? TILE : ROWS; }
#else
constexpr int64_t QUERIES = ROWS;
inline int64_t queries_at_once(const Model&) { return ROWS; }
#endif

template <class C, int Q>
void attend_some(int64_t count, const Model& m, int64_t window, const C* keys, const C* values, const int64_t* blocks,
                 const float* const* query, float* const* out, const int64_t* at, const Next<C>& following, float* scores) {
    if constexpr (Q > 0) {
        if (count == Q) attend<C, Q>(m, window, keys, values, blocks, query, out, at, following, scores);
        else attend_some<C, Q - 1>(count, m, window, keys, values, blocks, query, out, at, following, scores);
    }
}

// One head's keys and values of a token, into their block.
template <class C>
void put_token(C* keys, C* values, int64_t d, int64_t slot, const float* k, const float* v) {
    for (int64_t i = 0; i < d; i++) put(keys + i * PANEL + slot, k[i]), put(values + slot * d + i, v[i]);
}
#ifdef PAIRS
void put_token(Brain* keys, Brain* values, int64_t d, int64_t slot, const float* k, const float* v) {
    const __mmask32 half = slot & 1 ? 0xaaaaaaaa : 0x55555555;  // the other half is another token's, perhaps being written now
    Brain key[PANEL];
    Brain* mine = values + (slot & ~1) * d;
    for (int64_t i = 0; i < d; i += PANEL) {
        narrow(key, load(k + i));
        for (int64_t two = 0; two < PANEL; two += 2) std::memcpy(keys + (i + two) * PANEL + slot * 2, key + two, 2 * sizeof *key);
        narrow(key, load(v + i));
        Words value = reinterpret_cast<Words>(load(key));  // in the upper halves
        _mm512_mask_storeu_epi16(mine + i * 2, half, __m512i(slot & 1 ? value : value >> 16));
    }
}
#endif

template <class C>
void remember(const Model& m, int64_t layer, int64_t block, int64_t slot, const float* k, const float* v) {
    const int64_t d = m.head_dim, block_size = m.kv_heads * d * PANEL;
    C* keys = static_cast<C*>(m.keys) + (layer * m.blocks + block) * block_size;
    C* values = static_cast<C*>(m.values) + (layer * m.blocks + block) * block_size;
    for (int64_t head = 0; head < m.kv_heads; head++)
        put_token(keys + head * d * PANEL, values + head * d * PANEL, d, slot, k + head * d, v + head * d);
}

// ---------------------------------------------------------------- adapters

// An adapter's part of one projection: A [rank][ins] and, right behind it, B transposed [rank][outs].
struct Beside {
    const char* flat = nullptr;
    int64_t rank = 0, ins = 0, outs = 0;
    int32_t kind = BF16;
};

// y [outs] += B A x for one token. `ahead` is how far behind each number stands that of what this thread reads next, in bytes: most
// often it has the same shape, and a processor foresees no more than 4 kB.
template <class W>
void adapt(const Beside& its, const float* x, float* y, int64_t ahead) {
    float inner[MAX_RANK];
    const int64_t rank = its.rank, ins = its.ins, outs = its.outs;
    const W *a = reinterpret_cast<const W*>(its.flat), *b = a + rank * ins;
    auto fetch = [&](const W* at, int64_t count) {
        for (int64_t i = 0; i < count; i += 64 / int64_t(sizeof(W))) __builtin_prefetch(reinterpret_cast<const char*>(at + i) + ahead, 0, 2);
    };
    for (int64_t j = 0; j < rank; j++) {
        Floats lanes[2] = {};
        const W* row = a + j * ins;
        int64_t i = 0;
        for (; i + 2 * LANES <= ins; i += 2 * LANES) {
            fetch(row + i, 2 * LANES);
            lanes[0] += load(row + i) * load(x + i);
            lanes[1] += load(row + i + LANES) * load(x + i + LANES);
        }
        inner[j] = sum(lanes[0] + lanes[1]);
        for (; i < ins; i++) inner[j] += one(row[i]) * x[i];
    }
    constexpr int64_t WIDTH = 4 * LANES;
    int64_t out = 0;
    for (; out + WIDTH <= outs; out += WIDTH) {
        Floats result[4];
        for (int p = 0; p < 4; p++) result[p] = load(y + out + p * LANES);
        for (int64_t j = 0; j < rank; j++) {
            fetch(b + j * outs + out, WIDTH);
            for (int p = 0; p < 4; p++) result[p] += load(b + j * outs + out + p * LANES) * inner[j];
        }
        for (int p = 0; p < 4; p++) store(y + out + p * LANES, result[p]);
    }
    for (; out < outs; out++)
        for (int64_t j = 0; j < rank; j++) y[out] += one(b[j * outs + out]) * inner[j];
}

// Tokens of a step.
struct Rows {
    int64_t first, count;
};

// What stands side by side in one product: projections, each with its outputs.
struct Sections {
    int64_t first, count;  // projections
    int64_t outs[3];
};

// x, y: those of the rows.
void adapt_rows(Member& member, const Step& step, Rows rows, const Sections& sections, const float* x, int64_t xs, int64_t ins,
                float* y, int64_t ys) {
    if (!step.adapter_of) return;
    const int64_t count = rows.count * sections.count;
    auto beside = [&](int64_t item) {
        const int64_t its = item < count ? step.adapter_of[rows.first + item % rows.count] : -1, section = item / rows.count;
        if (its < 0) return Beside{};
        const Adapter& adapter = step.adapters[its];
        const int64_t projection = sections.first + section;
        return Beside{static_cast<const char*>(adapter.flat) + adapter.starts[projection] * (adapter.kind == F32 ? 4 : 2),
                      adapter.ranks[projection], ins, sections.outs[section], adapter.kind};
    };
    member.share(count, [&](int64_t item) {
        const int64_t row = item % rows.count, section = item / rows.count;
        const Beside its = beside(item), next = beside(item + member.team.threads);
        if (!its.rank) return;
        const int64_t ahead = next.rank ? next.flat - its.flat : 0;
        float* mine = y + row * ys;
        for (int64_t s = 0; s < section; s++) mine += sections.outs[s];
        if (its.kind == F32) adapt<float>(its, x + row * xs, mine, ahead);
        else adapt<Brain>(its, x + row * xs, mine, ahead);
    });
}

// ---------------------------------------------------------------- the forward pass

struct Workspace {
    float *normed, *qkv, *seen, *inner, *cosine, *sine;
    int64_t *piece_of, *tiles;
    bool apart;  // whether each thread takes its own tokens through the products

    // Lays the parts out from `at`, or from nothing to learn the size; returns the bytes they take.
    int64_t lay_out(const Model& m, int64_t n, int64_t pieces, int64_t ropes, int64_t threads, char* at) {
        char* begin = at;
        apart = n >= APART * threads;
        auto floats = [&](int64_t count) { float* here = reinterpret_cast<float*>(at); at += (count * 4 + 63) / 64 * 64; return here; };
        auto numbers = [&](int64_t count) { int64_t* here = reinterpret_cast<int64_t*>(at); at += (count * 8 + 63) / 64 * 64; return here; };
        const int64_t queries = m.heads * m.head_dim, keys = m.kv_heads * m.head_dim;
        normed = floats(n * m.hidden), qkv = floats(n * (queries + 2 * keys)), seen = floats(n * queries);
        inner = floats((apart ? AT_ONCE * threads : n) * (m.inner * (m.gated ? 2 : 1) + OFFSET));
        cosine = floats(ropes * n * m.head_dim / 2), sine = floats(ropes * n * m.head_dim / 2);
        piece_of = numbers(n), tiles = numbers(pieces + 1);
        return at - begin;
    }
};

struct Pass {
    const Model& m;
    const Step& step;
    Workspace& w;
    int64_t ropes;
    float* hidden;   // [n, hidden]
    float* scores;   // this thread's own
    Member& all;

    void run() {
        all.share(step.n, [&](int64_t row) { begin(row); });
        for (int64_t number = 0; number < m.layer_count; number++) layer(number, m.layers[number]);
        all.share(step.n, [&](int64_t row) { normalise(m.last, hidden + row * m.hidden, hidden + row * m.hidden, m.hidden, m.norm_eps, false); });
    }

    void begin(int64_t row) {
        float* mine = hidden + row * m.hidden;
        embed(m.embedding.packed ? m.embedding : m.head, step.tokens[row], m.embedding_scale, mine);
        const int64_t position = step.positions[row], half = m.head_dim / 2;
        if (m.positions)
            for (int64_t i = 0; i < m.hidden; i++) mine[i] += m.positions[position * m.hidden + i];
        for (int64_t rope = 0; rope < ropes; rope++)
            for (int64_t i = 0; i < half; i++) {
                const float angle = float(position) * m.frequencies[rope * half + i];
                w.cosine[(rope * step.n + row) * half + i] = std::cos(angle);
                w.sine[(rope * step.n + row) * half + i] = std::sin(angle);
            }
    }

    void layer(int64_t number, const Layer& l) {
        const int64_t h = m.hidden, queries = m.heads * m.head_dim, keys = m.kv_heads * m.head_dim, outs = queries + 2 * keys;
        const int64_t wide = m.inner * (m.gated ? 2 : 1) + OFFSET, per_layer = m.gated ? 7 : 4, first = number * per_layer;
        const Sections attention = m.gated ? Sections{first, 3, {queries, keys, keys}} : Sections{first, 1, {outs}};
        const Sections out{first + attention.count, 1, {h}};
        const Sections up = m.gated ? Sections{first + 4, 2, {m.inner, m.inner}} : Sections{first + 2, 1, {m.inner}};
        const Sections down{first + per_layer - 1, 1, {h}};

        by_rows([&](Member& member, Rows rows) {
            norm_rows(member, l.before_attention, rows);
            float *x = w.normed + rows.first * h, *y = w.qkv + rows.first * outs;
            product(member, l.qkv, x, h, y, outs, rows.count, false);
            adapt_rows(member, step, rows, attention, x, h, h, y, outs);
            member.share(rows.count, [&](int64_t row) { place(number, l, rows.first + row); });
        });
        if (m.cache_kind == F32) attention_phase<float>(number, l);
        else attention_phase<Brain>(number, l);
        by_rows([&](Member& member, Rows rows) {
            add_to_stream(member, rows, l.out, out, l.after_attention, w.seen + rows.first * queries, queries, queries);
            norm_rows(member, l.before_mlp, rows);
            float *x = w.normed + rows.first * h, *y = w.inner + (&member == &all ? 0 : omp_get_thread_num() * AT_ONCE * wide);
            product(member, l.up, x, h, y, wide, rows.count, false);
            adapt_rows(member, step, rows, up, x, h, h, y, wide);
            member.share(rows.count, [&](int64_t row) { activate(m, y + row * wide); });
            add_to_stream(member, rows, l.down, down, l.after_mlp, y, wide, m.inner);
        });
    }

    // Few tokens: all threads work at them together. Many: each thread takes some through all of `work`, and waits for nobody.
    template <class Work>
    void by_rows(Work work) {
        if (!w.apart) return work(all, Rows{0, step.n});
        const int64_t threads = all.team.threads;
        const int64_t groups = (step.n + AT_ONCE * threads - 1) / (AT_ONCE * threads) * threads;
        all.share(groups, [&](int64_t group) {
            Team alone{1};
            Member member{alone};
            const int64_t first = step.n * group / groups;
            work(member, Rows{first, step.n * (group + 1) / groups - first});
        });
    }

    void norm_rows(Member& member, const Norm& norm, Rows rows) {
        member.share(rows.count, [&](int64_t row) {
            const int64_t at = (rows.first + row) * m.hidden;
            normalise(norm, hidden + at, w.normed + at, m.hidden, m.norm_eps, false);
        });
    }

    // hidden += matrix · x, or the norm of that where the layer has one behind its parts. x: that of the rows.
    void add_to_stream(Member& member, Rows rows, const Matrix& matrix, const Sections& sections, const Norm& after, const float* x, int64_t xs, int64_t ins) {
        const int64_t at = rows.first * m.hidden;
        float *mine = hidden + at, *target = after.weight ? w.normed + at : mine;
        product(member, matrix, x, xs, target, m.hidden, rows.count, !after.weight);
        adapt_rows(member, step, rows, sections, x, xs, ins, target, m.hidden);
        if (after.weight)
            member.share(rows.count, [&](int64_t row) {
                normalise(after, target + row * m.hidden, mine + row * m.hidden, m.hidden, m.norm_eps, true);
            });
    }

    // Norms and turns a token's queries and keys, and puts its keys and values into the cache.
    void place(int64_t number, const Layer& l, int64_t row) {
        const int64_t d = m.head_dim, queries = m.heads * d, keys = m.kv_heads * d, half = d / 2;
        float* q = w.qkv + row * (queries + 2 * keys);
        for (int64_t head = 0; head < m.heads + m.kv_heads; head++) {
            const Norm& norm = head < m.heads ? l.q : l.k;
            if (norm.weight) normalise(norm, q + head * d, q + head * d, d, m.norm_eps, false);
            const int64_t angles = (l.rope * step.n + row) * half;
            if (m.frequencies) rotate(q + head * d, w.cosine + angles, w.sine + angles, half);
        }
        if (step.watched && step.watched[number] >= 0)
            std::copy(q, q + queries + keys, step.watched_rows + (step.watched[number] * step.n + row) * (queries + keys));
        const int64_t position = step.positions[row];
        const int64_t block = step.blocks[step.piece_blocks[w.piece_of[row]] + position / PANEL];
        const float *k = q + queries, *v = k + keys;
        if (m.cache_kind == F32) remember<float>(m, number, block, position % PANEL, k, v);
        else remember<Brain>(m, number, block, position % PANEL, k, v);
    }

    template <class C>
    void attention_phase(int64_t number, const Layer& l) {
        const int64_t d = m.head_dim, group = m.heads / m.kv_heads, outs = (m.heads + 2 * m.kv_heads) * d;
        const C* keys = static_cast<const C*>(m.keys) + number * m.blocks * m.kv_heads * d * PANEL;
        const C* values = static_cast<const C*>(m.values) + number * m.blocks * m.kv_heads * d * PANEL;
        const int64_t count = w.tiles[step.pieces] * m.kv_heads, block_size = d * PANEL, at_once = queries_at_once(m);
        auto piece_of = [&](int64_t item) {  // the piece that a tile belongs to
            int64_t low = 0, high = step.pieces - 1;
            while (low < high) {
                int64_t middle = (low + high + 1) / 2;
                if (w.tiles[middle] <= item / m.kv_heads) low = middle;
                else high = middle - 1;
            }
            return low;
        };
        // All heads of a token one after the other where there are tokens enough: a block has them side by side.
        const int64_t together = w.tiles[step.pieces] >= 2 * all.team.threads ? m.kv_heads : 1;
        const auto attend = [&](int64_t item, int64_t next) {
            const int64_t kv_head = item % m.kv_heads, tile = item / m.kv_heads, piece = piece_of(item);
            Next<C> following;
            if (const int64_t its = piece_of(next); next < count && step.piece_counts[its] == 1) {
                const int64_t position = step.positions[step.piece_rows[its]], begin = first_seen(position, l.window) / PANEL;
                following.keys = keys + next % m.kv_heads * block_size;
                following.blocks = step.blocks + step.piece_blocks[its] + begin;
                following.count = std::min(position / PANEL + 1 - begin, AT_MOST_AHEAD);
            }
            const int64_t from = (tile - w.tiles[piece]) * at_once, left = step.piece_counts[piece] * group - from;
            const int64_t queries = left < at_once ? left : at_once;
            const float* query[QUERIES];
            float* out[QUERIES];
            int64_t at[QUERIES];
            for (int64_t i = 0; i < queries; i++) {
                const int64_t row = step.piece_rows[piece] + (from + i) / group, head = kv_head * group + (from + i) % group;
                query[i] = w.qkv + row * outs + head * d;
                out[i] = w.seen + row * m.heads * d + head * d;
                at[i] = step.positions[row];
            }
#ifdef AMX
            if constexpr (std::is_same_v<C, Brain>)
                if (amx_attends(m))
                    return amx_attend(queries, m, l.window, keys + kv_head * block_size, values + kv_head * block_size,
                                      step.blocks + step.piece_blocks[piece], query, out, at, following, scores);
#endif
            attend_some<C, ROWS>(queries, m, l.window, keys + kv_head * block_size, values + kv_head * block_size,
                                 step.blocks + step.piece_blocks[piece], query, out, at, following, scores);
        };
        all.share(count / together, [&](int64_t group) {
            const int64_t first = group * together;
            for (int64_t i = 0; i < together; i++) attend(first + i, i + 1 < together ? first + i + 1 : first + all.team.threads * together);
        });
    }
};

}  // namespace

extern "C" {

// Bytes of workspace that `forward` needs for n tokens.
int64_t workspace_bytes(const Model* model, int64_t n, int64_t pieces, int64_t ropes, int32_t threads) {
    Workspace w;
    return w.lay_out(*model, n, pieces, ropes, threads, nullptr);
}

// hidden [n, hidden] becomes the normed hidden states of the step. scores: [threads][rows_at_once() * longest], longest in whole blocks.
void forward(const Model* model, const Step* step, float* hidden, char* workspace, float* scores, int64_t longest, int64_t ropes, int32_t threads) {
    Workspace w;
    w.lay_out(*model, step->n, step->pieces, ropes, threads, workspace);
    const int64_t group = model->heads / model->kv_heads, at_once = queries_at_once(*model);
    w.tiles[0] = 0;
    for (int64_t piece = 0; piece < step->pieces; piece++) {
        w.tiles[piece + 1] = w.tiles[piece] + (step->piece_counts[piece] * group + at_once - 1) / at_once;
        for (int64_t i = 0; i < step->piece_counts[piece]; i++) w.piece_of[step->piece_rows[piece] + i] = piece;
    }
    Team team{threads};
#pragma omp parallel num_threads(threads)
    {
#pragma omp single
        team.threads = omp_get_num_threads();  // which may be fewer
        [[maybe_unused]] Tiles tiles;
        Member member{team};
        Pass{*model, *step, w, ropes, hidden, scores + omp_get_thread_num() * QUERIES * longest, member}.run();
    }
}

// y [n, outs] = x [n, ins] times the matrix.
void multiply(const Matrix* matrix, const float* x, float* y, int64_t n, int32_t threads) {
    Team team{threads};
#pragma omp parallel num_threads(threads)
    {
#pragma omp single
        team.threads = omp_get_num_threads();
        [[maybe_unused]] Tiles tiles;
        Member member{team};
        product(member, *matrix, x, matrix->ins, y, matrix->outs, n, false);
    }
}

int32_t rows_at_once() { return QUERIES; }

// Whether what weights of bfloat16 or int8 are multiplied with is rounded to bfloat16.
int32_t rounds_inputs() {
#ifdef PAIRS
    return 1;
#else
    return 0;
#endif
}

}  // extern "C"
