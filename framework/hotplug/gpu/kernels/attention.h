// Numbers of an attention, shared by the kernel and the one that puts its parts together.
typedef struct {
    int tokens;
    int rows;
    int heads;
    int sharing; // query heads to a key head
    int width;
    int value_width;
    int splits;
    int causal;
    int window;
    int has_positions;
    int wide; // positions are i64
    int has_sinks;
    int has_slopes;
    float scale;
    float softcap;
    int padding;
} Attention;
