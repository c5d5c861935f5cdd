// Counts that the compiler is to know, so that loops over them are rolled out.

#pragma once

#include <cstdint>
#include <type_traits>

constexpr int GROUP = 8;  // rows of a product, or heads, that are summed at once

// call(count), the count being a constant, from 1 to MOST.
template <int MOST, class Call>
inline void known(int64_t count, Call call) {
    if constexpr (MOST > 1)
        if (count < MOST) return known<MOST - 1>(count, call);
    call(std::integral_constant<int, MOST>());
}
