// Whether an element comes before another: the larger or the smaller one, of equals the first in its row.
// NaN counts as largest; a place of -1 is none and comes last.
FUNCTION int before(NUM a, int a_at, NUM b, int b_at, int descending)
{
    const int a_nan = a != a;
    const int b_nan = b != b;
    if (a_at < 0 || b_at < 0)
        return b_at < 0 && a_at >= 0;
    if (a_nan != b_nan)
        return descending ? a_nan : b_nan;
    if (!a_nan && a != b)
        return descending ? a > b : a < b;
    return a_at < b_at;
}
