#include <unistd.h>
int main(){alarm(5);for(volatile long i=0;;i++);}
