#include "daemon/sim/cmd_plot.h"

#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/mem.h"

int cmd_plot(const struct plot *plot, const char *path, struct err *err)
{
    if (path != NULL) {
        return plot_write(plot, path, err);
    }
    struct winsize size = {0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 40;
    setlocale(LC_CTYPE, "");
    bool utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    struct buf text = {0};
    plot_draw(&text, plot, known ? size.ws_col : 100, utf8);
    fwrite(text.data, 1, text.len, stdout);
    buf_fini(&text);
    return 0;
}

void cmd_plot_summary(struct plot *plot, const struct summary *s, uint64_t capacity)
{
    struct plot_span *spans = mem_alloc_array(s->count + 1, sizeof *spans);
    size_t count = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct outcome *o = &s->outcomes[i];
        if (o->start_ms >= 0) {
            spans[count++] = (struct plot_span){o->submit_ms, o->start_ms, o->end_ms,
                                                (uint64_t)o->nodes * o->gpus};
        }
    }
    plot_add(plot, s->name, spans, count, capacity);
    free(spans);
}
