// The passes of every cell. They are in a separate file so that the compiler can run in parallel.

#include "sequence.h"

namespace charloom {

template void run_forward<LSTM>(const Forward&, int);
template void run_forward<GRU>(const Forward&, int);
template void run_forward<Elman>(const Forward&, int);
template void run_backward<LSTM>(const Backward&, int);
template void run_backward<GRU>(const Backward&, int);
template void run_backward<Elman>(const Backward&, int);

}  // namespace charloom
