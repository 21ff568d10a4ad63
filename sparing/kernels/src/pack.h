// Packs the rows of a file into panels.
#pragma once

#include "formats.h"
#include "threads.h"

namespace sparing {

// Packs ``rows`` rows of ``columns`` weights, in ``from`` in the file's layout of ``type``, into panels of ``format`` at ``to``.
// Row r begins at ``from + order[r] * row_bytes``; a null ``order`` keeps the order. A float type may become any format
// except a K format; a packed type keeps its own. False where a float is no number, or a scale is beyond float16.
bool pack(Pool& pool, int32_t type, int32_t format, int64_t rows, int64_t columns, const uint8_t* from,
          int64_t row_bytes, const int32_t* order, uint8_t* to);

// Copies row ``from_row`` of a packed matrix to row ``to_row`` of another one of the same format and width.
void copy_row(int32_t format, int64_t columns, const uint8_t* from, int64_t from_row, uint8_t* to, int64_t to_row);

}  // namespace sparing
