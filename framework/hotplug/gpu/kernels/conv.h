// One spatial axis of a convolution, for those of its outputs that meet the same elements of the
// kernel: output to + m * stride is the sum over j of kernel element first + j * skip times x at
// m * step + origin + j * move, where that is in x. There are always three axes.
typedef struct {
    int places; // m is below this
    int step;
    int origin;
    int move;
    int count; // j is below this
    int first;
    int skip;
    int to;
    int stride;
} Axis;

// Views: x has strides of batch, channel and three axes; w of group, output, channel and three axes.
