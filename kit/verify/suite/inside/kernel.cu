// Compiled by the image's nvcc: fills a piece of a GPU's memory and compares what comes back.
#include <cstdio>

__global__ void fill(unsigned int *data) {
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    data[i] = 3 * i + 1;
}

int main() {
    const unsigned int size = 1024;
    unsigned int *memory, result[size];
    cudaError_t error = cudaMalloc(&memory, sizeof(result));
    if (error == cudaSuccess) {
        fill<<<size / 64, 64>>>(memory);
        error = cudaGetLastError();
    }
    if (error == cudaSuccess) error = cudaMemcpy(result, memory, sizeof(result), cudaMemcpyDeviceToHost);
    if (error != cudaSuccess) {
        std::printf("%s\n", cudaGetErrorString(error));
        return 1;
    }
    for (unsigned int i = 0; i < size; i++) {
        if (result[i] != 3 * i + 1) {
            std::printf("wrong at %u: %u\n", i, result[i]);
            return 1;
        }
    }
    std::printf("right\n");
    return 0;
}
