// A kernel as a function that computes one item of one group, for a kernel that calls several of them
// (series.h). What items of a group share is local memory no more: there is one of them.
#undef KERNEL
#define KERNEL(items) FUNCTION void
#undef LOCAL
#define LOCAL
#undef GROUP_X
#define GROUP_X group_x
#undef GROUP_Y
#define GROUP_Y group_y
#undef ITEM
#define ITEM item
