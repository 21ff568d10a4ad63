// From a file's rows to packed panels.
#pragma once

#include "formats.h"
#include "threads.h"

namespace sparing {

// Packs ``rows`` rows of ``columns`` weights that lie in ``from`` as a file of type ``type`` has them, row r at
// ``from + order[r] * row_bytes`` (``order`` null: in their order), into panels of ``format`` at ``to``. A float type may
// become any format but the K ones; a packed type keeps its own.
void pack(Pool& pool, int32_t type, int32_t format, int64_t rows, int64_t columns, const uint8_t* from,
          int64_t row_bytes, const int32_t* order, uint8_t* to);

// Copies row ``from_row`` of a packed matrix to row ``to_row`` of another one of its format and width.
void copy_row(int32_t format, int64_t columns, const uint8_t* from, int64_t from_row, uint8_t* to, int64_t to_row);

}  // namespace sparing
