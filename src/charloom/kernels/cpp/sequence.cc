// The passes of every cell. They are in a separate file so that the compiler can run in parallel.

#include "sequence.h"

namespace charloom {

template void run_forward<LSTM, Float32>(const Forward&, int);
template void run_forward<GRU, Float32>(const Forward&, int);
template void run_forward<Elman, Float32>(const Forward&, int);
template void run_backward<LSTM, Float32>(const Backward&, int);
template void run_backward<GRU, Float32>(const Backward&, int);
template void run_backward<Elman, Float32>(const Backward&, int);

}  // namespace charloom
