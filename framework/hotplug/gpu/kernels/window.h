// Places of a window over three axes: element j at place m meets x at m * stride - padding +
// j * dilation, where that is in x.
typedef struct {
    int length[3]; // of x
    int places[3];
    int size[3];
    int stride[3];
    int padding[3];
    int dilation[3];
} Window;

FUNCTION int met(const Window window, int axis, int m, int j)
{
    return m * window.stride[axis] - window.padding[axis] + j * window.dilation[axis];
}

FUNCTION int inside(const Window window, int axis, int at)
{
    return at >= 0 && at < window.length[axis];
}
