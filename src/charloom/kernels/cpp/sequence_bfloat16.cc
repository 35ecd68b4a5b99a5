// The passes of every cell with bfloat16 factors.

#include "sequence.h"

namespace charloom {

template void run_forward<LSTM, BFloat16>(const Forward&, int);
template void run_forward<GRU, BFloat16>(const Forward&, int);
template void run_forward<Elman, BFloat16>(const Forward&, int);
template void run_backward<LSTM, BFloat16>(const Backward&, int);
template void run_backward<GRU, BFloat16>(const Backward&, int);
template void run_backward<Elman, BFloat16>(const Backward&, int);

}  // namespace charloom
